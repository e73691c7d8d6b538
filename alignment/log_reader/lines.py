"""Understanding one line of a text log: where its step, its epoch and its named numbers are.

`analyse` looks at a line nobody has described and returns a `Template`: a regular expression in which exactly the numbers that matter are
groups. Logs repeat a handful of line shapes a million times, so `text.read_text` calls `analyse`, which is some twenty times slower than
taking a line whose shape is known, only for a shape it has not seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignment.log_reader import names

NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|(?i:nan|inf(?:inity)?)(?![A-Za-z]))"
# A number is not a value when it goes on as a date, a time, a fraction, a version or a shape.
_END = r"(?![\d:/]|[.\-]\d|\s*/\s*\d)"
_WORDS = (
    "total|train|training|val|valid|validation|test|eval|learning|cls|box|bbox|reg|obj|dfl|aux|best|final|average|mean|grad|data|batch|iter|giou|class"
)
_NAME = r"(?:(?:" + _WORDS + r")[ ])?[^\W\d][\w./@\-]*(?:\([\w.:]*\))?"
_PAIR = re.compile(r"(?<![\w.])(?P<name>" + _NAME + r")[\"']?\s*(?:[:=]|：)\s*[\"']?(?P<value>" + NUMBER + r")" + _END, re.I)
_BARE = re.compile(r"(?<![\w:=.])(?P<name>" + _NAME + r")\s+(?P<value>" + NUMBER + r")(?![\w]*[:=/\-]\d)" + _END, re.I)
_BRACKETS = re.compile(r"Epoch\s*(?:\((?:train|val)\))?\s*:?\s*\[\s*(?P<epoch>\d+)\s*\]\s*\[\s*(?P<inner>\d+)\s*/\s*(?P<per>\d+)\s*\]", re.I)
_EPOCH = re.compile(
    r"(?:(?<![A-Za-z_])(?:current_)?epochs?[\"']?|轮次|第)\s*[:=#\[(：]*\s*(?P<epoch>\d+(?:\.\d+)?)(?:\s*(?:/|of)\s*(?P<epochs>\d+))?(?![\d.]*\d)", re.I
)
_STEP_WORDS = r"global[_ ]?step|iterations?|iters?|steps?|step_num|it|迭代次数|迭代|步数|步"
_STOP = {"to", "of", "in", "at", "for", "took", "from", "than", "and", "the", "is", "was", "after", "with", "epoch", "epochs", "step", "steps", "iter",
         "iteration", "iters", "batch", "seed", "top", "line", "port", "rank", "gpu", "info", "on", "by", "pid", "version"}
_PHASE = re.compile(r"(?<![A-Za-z])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|eval(?:uat(?:e|ion|ing))?)(?![a-z])|(训练)|(验证|测试|评估)", re.I)
_STAMP = re.compile(r"\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d|\d\d[-/]\d\d \d\d:\d\d:\d\d")


@dataclass
class Template:
    """One shape of line. `columns` names the groups of `regex` in order: "step", "epoch", "inner" (position inside an epoch or a validation
    pass), "per" (length of that), "epochs", or ("value", name). `stamp` is the slice of the line that holds its time."""

    regex: re.Pattern[str]
    columns: list
    spans: list[tuple[int, int]]
    phase: str
    category: str
    stamp: slice | None
    constants: dict[str, float]

    @property
    def keyed(self) -> bool:
        return any(column in ("step", "epoch") for column in self.columns)


def step_pattern(extra: str | None) -> re.Pattern[str]:
    """The pattern of a step; `extra` is a word the user named with --step-name."""
    words = _STEP_WORDS if not extra else re.escape(extra) + "|" + _STEP_WORDS
    return re.compile(
        r"(?<![A-Za-z_.])(?:" + words + r")[\"']?\s*[:=#\[(|：]*\s*(?P<step>\d+)(?!\d|[.:]\d)(?:\s*/\s*(?P<steps>\d+))?"
        r"(?:\((?P<inner>\d+)/(?P<per>\d+)\))?", re.I,
    )


def analyse(line: str, step_regex: re.Pattern[str], *, context: bool) -> Template | None:
    """The template of `line`, or None when it holds no named number that a step or an epoch belongs to.

    `context` says that an earlier line gave an epoch or a step, which is then what a line of metrics without one of its own belongs to.
    """
    spans: list[tuple[int, int, object]] = []
    brackets = _BRACKETS.search(line)
    if brackets:
        spans += [(*brackets.span(g), g) for g in ("epoch", "inner", "per")]
    else:
        epoch = _EPOCH.search(line)
        if epoch:
            spans += [(*epoch.span(g), g) for g in ("epoch", "epochs") if epoch.group(g) is not None]
        step = step_regex.search(line)
        if step:
            # "Iter 20/317" counts to a total; whether inside the epoch or over all is settled when the whole log is known.
            spans += [(*step.span(g), "per_step" if g == "steps" else g) for g in ("step", "steps", "inner", "per") if step.group(g) is not None]
    keyed = bool(spans)
    if not keyed and not context:
        return None
    taken = [(start, end) for start, end, _ in spans]
    pairs = _find(_PAIR, line, taken)
    if not pairs and keyed:
        pairs = [p for p in _find(_BARE, line, taken) if p[2][1].lower() not in _STOP]
    pairs = [p for p in pairs if p[2][1].lower().split("/")[-1] not in _STOP]
    phase = _phase(line)
    if not keyed:
        # Without a step of its own a line counts only when a result is on it; anything else may be a setting being printed.
        if not any(names.kind_of(names.split_phase(p[2][1], phase)[1]) in ("metric", "loss") for p in pairs):
            return None
    if not pairs or (keyed and all(names.kind_of(p[2][1]) == "environment" for p in pairs)):
        return None
    pairs = [p for p in pairs if names.kind_of(names.split_phase(p[2][1], phase)[1]) != "environment"]
    kinds = {names.kind_of(names.split_phase(p[2][1], phase)[1]) for p in pairs}
    category = "metric" if "metric" in kinds and not kinds & {"loss", "lr"} else phase
    if category == "metric":
        phase = "val"
    return _build(line, spans + pairs, phase, category)


def _find(regex: re.Pattern[str], line: str, taken: list[tuple[int, int]]) -> list[tuple[int, int, object]]:
    found, seen = [], set()
    for match in regex.finditer(line):
        start, end = match.span("value")
        name = re.sub(r"\s+", "_", match.group("name").strip(".-/"))
        if name in seen or any(start < e and s < end for s, e in taken):
            continue
        seen.add(name)
        found.append((start, end, ("value", name)))
    return found


def _phase(line: str) -> str:
    match = _PHASE.search(line)
    if not match:
        return "train"
    return "train" if match.group(2) or (match.group(1) or "").lower().startswith("train") else "val"


def _build(line: str, spans: list[tuple[int, int, object]], phase: str, category: str) -> Template:
    spans = sorted(spans)
    known = {column: (start, end) for start, end, column in spans if isinstance(column, str)}
    constants = {}
    if "step" in known and "per_step" not in known:
        # With a step of its own, a line needs its totals only once, and its place inside the epoch only to tell lines of one validation apart.
        drop = {"epochs"} if phase == "val" else {"epochs", "per", "inner"}
        constants = {name: float(line[slice(*known[name])]) for name in ("epochs", "per") if name in known}
        spans = [span for span in spans if span[2] not in drop]
    parts, at = [], 0
    for start, end, column in spans:
        parts += [_loosen(line[at:start]), f"({NUMBER})" if isinstance(column, tuple) else r"(\d+(?:\.\d+)?)"]
        at = end
    parts.append(_loosen(line[at:]))
    stamp = _STAMP.search(line)
    where = slice(*stamp.span()) if stamp else None
    return Template(re.compile("".join(parts)), [c for _, _, c in spans], [(a, b) for a, b, _ in spans], phase, category, where, constants)


def _loosen(literal: str) -> str:
    """A literal piece as a pattern in which free-standing numbers and the width of blanks may change; digits inside a name may not."""
    pieces = []
    for token in re.findall(r"[^\W\d]\w*|\d+|\s+|.", literal, re.S):
        if token.isdigit():
            pieces.append(r"\d+")
        elif token.isspace():
            pieces.append(r"\s+")
        else:
            pieces.append(re.escape(token))
    return "".join(pieces)


def stamp_in_place(line: str, stamp: slice | None) -> bool:
    """Whether the time of lines like this one always stands at the same bytes: nothing of varying width comes before it."""
    return stamp is not None and line[: stamp.start].isascii() and not re.search(r"\d", line[: stamp.start])
