"""Reads the result files below a report folder and makes their content harmless.

Nothing here trusts a result file: it may be missing, cut short, made by another version, or written
by somebody who wants to break the report. A file that cannot be used becomes a `Part` with a
`problem`, never an exception; only a folder without a single usable result is a UserError.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jt_nanodet.errors import UserError

#: Sub-folders with a meaning of their own, in the order of the report. Others are appended by name.
KNOWN_PARTS = ("structure", "weights", "layers", "infer")
#: A result file is text about tensors, not tensors: more than this is a mistake or an attack.
MAX_BYTES = 256 * 1024 * 1024
MAX_TEXT = 4000
#: More than any result file needs; Python's own limit where nobody raised it.
DEPTH = 1000

# Characters that would vanish, reorder the line, or be illegal in XML: control codes, bidirectional
# overrides, line separators, lone surrogates, non-characters.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass
class Part:
    """One result.json: `data` is a dict, or None with `problem` saying why it cannot be shown."""

    name: str
    path: str
    data: dict | None = None
    problem: str = ""

    @property
    def damaged(self) -> bool:
        """True when the file exists but cannot be used; an absent file is merely "not run"."""
        return self.data is None and not self.problem.startswith("no ")


@dataclass
class Source:
    """All that a report is made from: the folder, report.json, and the parts below it; `single` when it is the result of one command."""

    folder: Path
    top: Part
    parts: dict[str, Part] = field(default_factory=dict)
    single: bool = False

    def usable(self) -> list[Part]:
        """Parts that hold data, in the order of the report."""
        return [part for part in self.parts.values() if part.data is not None]


def visible(text: str) -> str:
    """Return `text` with every invisible or dangerous character spelt out, at most MAX_TEXT long."""

    def spell(match: re.Match) -> str:
        char = match.group()
        code = ord(char)
        return _SHORT.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    text = _HIDDEN.sub(spell, text)
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}… (+{len(text) - MAX_TEXT} characters)"
    return text


def clean(value: object) -> object:
    """Apply `visible` to every string of a JSON value, keys included; numbers stay as they are."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def as_dict(value: object) -> dict:
    """`value` if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """A JSON value as one line of text; None is empty, a list of words (a command) is joined."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def as_number(value: object) -> float | None:
    """A float, or None. Result files spell NaN and infinities as strings; both spellings are read."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, (int, float, str)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
        except ValueError:
            return None
    return None


def as_count(value: object) -> int | None:
    """A non-negative whole number, or None."""
    number = as_number(value)
    if number is None or not math.isfinite(number) or number < 0:
        return None
    return int(number)


@contextlib.contextmanager
def shallow() -> Iterator[None]:
    """At most DEPTH calls within each other, also where a package has raised Python's limit (some frameworks do)."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(min(limit, DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def read_json(path: Path, name: str, shown: str) -> Part:
    """Read one result file; every way in which it can be bad ends in `Part.problem`."""
    part = Part(name, shown)
    try:
        if not path.is_file():
            part.problem = f"no {shown}"
            return part
        size = path.stat().st_size
        if size > MAX_BYTES:
            part.problem = f"{shown} has {size} bytes, more than a result file can have"
            return part
        text = path.read_bytes().decode("utf-8", "replace")
        with shallow():
            data = clean(json.loads(text))
    except OSError as error:
        part.problem = f"{shown} cannot be read ({visible(error.strerror or str(error))})"
    except RecursionError:
        part.problem = f"{shown} is nested too deeply"
    except ValueError as error:
        part.problem = f"{shown} is not valid JSON ({visible(str(error))})"
    else:
        if isinstance(data, dict):
            part.data = data
        else:
            part.problem = f"{shown} does not hold a JSON object"
    return part


def read_folder(folder: Path) -> Source:
    """Read report.json and every `<part>/result.json` one level below `folder`; of a folder of one command, its own result.json.

    Raises UserError when the folder does not exist or holds no usable result at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{visible(str(folder))} is not a folder; name the folder that was given to"
            " `python -m alignment.report --output`"
        )
    source = Source(folder, read_json(folder / "report.json", "report", "report.json"))
    if (folder / "result.json").is_file() and not (folder / "report.json").is_file():
        return _one_command(source)
    try:
        others = sorted(child.name for child in folder.iterdir() if (child / "result.json").is_file())
    except OSError as error:
        raise UserError(
            f"{visible(str(folder))} cannot be listed ({error.strerror}); make it readable with `chmod u+rx`"
        ) from None
    names = list(KNOWN_PARTS) + [name for name in others if name not in KNOWN_PARTS]
    for name in names:
        shown = visible(f"{name}/result.json")
        source.parts[visible(name)] = read_json(folder / name / "result.json", visible(name), shown)
    if not source.usable() and source.top.data is None:
        bad = [part.problem for part in [source.top, *source.parts.values()] if part.damaged]
        reason = f" ({bad[0]})" if bad else ""
        raise UserError(
            f"{visible(str(folder))} holds no usable result file{reason}; make one with"
            f" `python -m alignment.report --config configs/nanodet-plus-m_320.yml --output {visible(str(folder))}`"
        )
    return source


def _one_command(source: Source) -> Source:
    """`source` for the folder of one command: its result is the only part, and its counts and verdict stand on top."""
    part = read_json(source.folder / "result.json", "result", "result.json")
    if part.data is None:
        raise UserError(f"{visible(str(source.folder))} holds no usable result file ({part.problem}); run its command again")
    part.name = as_text(part.data.get("command")) or "result"
    source.parts = {name: Part(name, "", problem=f"no {name} in this folder") for name in KNOWN_PARTS if name != part.name} | {part.name: part}
    source.top.data = {key: part.data[key] for key in ("verdict", "compared", "failed", "skipped", "first_failure", "first_failure_detail") if key in part.data}
    source.single = True
    return source
