"""One file a family of operators; each has ``ENTRIES``. `alignment.atlas.table` collects them."""
