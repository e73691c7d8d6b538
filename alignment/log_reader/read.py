"""From what the user named, files or folders, to runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from alignment.log_reader import encoding as encodings
from alignment.log_reader.events import is_event_file, read_events
from alignment.log_reader.model import Run
from alignment.log_reader.tabular import EPOCH_NAMES, STEP_NAMES, read_csv, read_jsonl
from alignment.log_reader.text import read_text
from jt_nanodet.errors import UserError

#: Bytes of a file that decide whether it is a log.
_SAMPLE = 1_000_000
_SUFFIXES = {".txt", ".log", ".out", ".jsonl", ".json", ".csv", ".tsv", ""}


def find_runs(names: list[Path]) -> list[Path]:
    """The runs behind `names`, each a log file or a folder of TensorBoard event files.

    A folder stands for the logs in it, one run each, or for its sub-folders' logs; text logs are preferred to event files beside them.
    UserError for a path that does not exist, a folder without a log, or one log named twice on a side.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise UserError(f"{path} does not exist; check the path after --pytorch-log or --jittor-log.")
        found += _in_folder(path) if path.is_dir() else [path]
    real = [path.resolve() for path in found]
    if len(set(real)) < len(real):
        twice = next(path for i, path in enumerate(found) if real[i] in real[:i])
        raise UserError(f"{twice} is named twice on one side and would count as two seeds; name every log once.")
    return found


def _in_folder(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts))
    logs = [path for path in files if path.suffix.lower() in _SUFFIXES and not is_event_file(path) and path.stat().st_size and _looks_like_a_log(path)]
    if logs:
        # Our own runs keep two logs of one training side by side; the second would count as another seed.
        return [path for path in logs if not (path.name == "logs.txt" and path.with_name("log.jsonl") in logs)]
    events = [path for path in files if is_event_file(path)]
    if not events:
        raise UserError(f"{folder} holds no log (.txt, .log, .jsonl, .csv or TensorBoard event file); name the log file itself.")
    # Event files straight below the folder are one run; else every sub-folder is one, with whatever lies below it.
    if any(path.parent == folder for path in events):
        return [folder]
    return sorted({folder / path.relative_to(folder).parts[0] for path in events})


def _looks_like_a_log(path: Path) -> bool:
    """Whether a file found in a folder, not named by the user, holds a series; configurations and result files lie there too."""
    if path.name == "eval_results.txt":
        # Upstream appends its best results there; they are in its log too.
        return False
    try:
        if path.suffix.lower() == ".json" and _kind(path, None) != "jsonl":
            return False
        if path.stat().st_size <= _SAMPLE:
            return bool(_read(path, None).series)
        with tempfile.TemporaryDirectory() as folder, open(path, "rb") as file:
            head = Path(folder) / path.name
            head.write_bytes(file.read(_SAMPLE))
            return bool(_read(head, None).series)
    except UserError:
        return False


def read_run(path: Path, *, step_name: str | None = None) -> Run:
    """Read one run. UserError when nothing in it can be placed on a step or an epoch: it is not guessed."""
    run = _read(Path(path), step_name)
    if not run.series:
        example = f" (line {run.unread[0][0]}: {run.unread[0][1][:80]!r})" if run.unread else ""
        raise UserError(
            f"no line of {path} gives a named number together with a step or an epoch{example}; "
            "name the word that counts the steps with --step-name WORD, or give another log."
        )
    return run


def _read(path: Path, step_name: str | None) -> Run:
    if path.is_dir():
        return read_events(sorted(p for p in path.rglob("*") if is_event_file(p)), path)
    if is_event_file(path):
        return read_events([path], path)
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; give the log of a run that has started.")
    kind = _kind(path, step_name)
    return {"jsonl": read_jsonl, "csv": read_csv, "text": read_text}[kind](path, step_name=step_name)


def _kind(path: Path, step_name: str | None) -> str:
    with encodings.open_text(path, encodings.detect(path)) as file:
        first = next((line.strip() for line in file if line.strip() and not line.startswith("#")), "")
    if first.startswith("{") and first.endswith("}") and '"' in first:
        return "jsonl"
    if path.suffix.lower() in (".csv", ".tsv"):
        return "csv"
    cells = [cell.strip().strip('"').lower() for cell in first.replace(";", ",").replace("\t", ",").split(",")]
    keys = STEP_NAMES | EPOCH_NAMES | ({step_name.lower()} if step_name else set())
    # A header line: several bare names, no number among them, and one of them counts.
    if len(cells) > 1 and keys & set(cells) and not any(any(c in ":=" for c in cell) for cell in cells):
        return "csv"
    return "text"
