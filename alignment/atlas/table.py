"""All entries of the atlas, in the order in which they are shown."""

from __future__ import annotations

import dataclasses
import importlib

from alignment.atlas.entry import Entry
from jt_nanodet.errors import UserError, nearest

FAMILIES = {
    "convolution": "convolutions", "transposed": "transposed convolutions", "norm": "norms", "activation": "activations", "pool": "pools",
    "resize": "interpolation, padding and patches", "loss": "losses", "elementwise": "element by element", "reduction": "reductions",
    "order": "sorting and top-k", "index": "indexing, scatter and gather", "shape": "shape", "product": "matrix products", "dtype": "types and their promotion",
    "random": "random streams", "optimiser": "optimisers and schedulers", "initialiser": "initialisers",
}


def entries(families: list[str] | None = None, first: int | None = None, plain: bool = False) -> list[Entry]:
    """The entries of `families` (None: all), at most `first` of each, `plain` without their edge inputs. UserError for a family that is not there."""
    found = []
    for name in families or FAMILIES:
        if name not in FAMILIES:
            hint = nearest(name, FAMILIES)
            raise UserError(f'no family "{name}"{f" (did you mean {hint}?)" if hint else ""}: give --family one of {", ".join(FAMILIES)}')
        module = importlib.import_module(f"alignment.atlas.families.{name}")
        found += [dataclasses.replace(entry, family=name, edges=() if plain else entry.edges) for entry in module.ENTRIES[:first]]
    return found
