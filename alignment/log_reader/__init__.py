"""Reading training logs: text of any shape, JSON lines, CSV and TensorBoard event files, in the encodings people have."""

from alignment.log_reader.model import Run, Series
from alignment.log_reader.read import find_runs, read_run

__all__ = ["Run", "Series", "find_runs", "read_run"]
