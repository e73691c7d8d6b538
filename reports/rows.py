"""The compared tensors of all result files as typed rows, and the words for their verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from reports.source import Source, as_dict, as_list, as_number, as_text

#: From harmless to serious; the position is the rank. "not_run" never outranks a real verdict.
SEVERITY = ("not_run", "info", "pass", "warn", "inconclusive", "not_comparable", "fail")
#: Row verdicts that make a row appear in "only failing".
BAD = ("fail", "not_comparable", "inconclusive")
EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3, "not_comparable": 3}
LABELS = {
    "pass": "PASSED", "fail": "FAILED", "inconclusive": "INCONCLUSIVE", "not_comparable": "NOT COMPARABLE",
    "warn": "WARNING", "skip": "SKIPPED", "info": "MEASURED", "not_run": "NOT RUN",
}  # fmt: skip
STAGE_ORDER = ("observer", "check", "structure", "weights", "data", "param", "forward", "backward", "optim", "decode", "post", "metric")
NUMBERS = (
    "max_abs", "max_rel", "rel_l2", "cosine", "sqnr_db", "ulp_p99", "err_ref_fp64", "err_cand_fp64",
    "own", "own_rel_l2", "inherited", "inherited_rel_l2", "amplification", "floor", "tolerance", "beyond", "size",
    "value_ref", "value_cand",
)  # fmt: skip


@dataclass
class Row:
    """One compared tensor: the fields of a result file, typed and never missing."""

    number: int
    part: str
    stage: str
    name: str
    other: str
    verdict: str
    match: str
    reason: str
    values: dict[str, float | None]
    text: dict[str, str]
    depth: float

    @property
    def bad(self) -> bool:
        return self.verdict in BAD

    @property
    def anchor(self) -> str:
        return f"t{self.number}"

    @property
    def why(self) -> str:
        """Reason code and sentence, as far as there are any: `beyond_bound: greatest difference at …`."""
        return ": ".join(text for text in (self.reason, self.text["hint"]) if text)


def verdict_of(value: object) -> str:
    """A known verdict; anything else is "inconclusive", because unknown must not read as equal."""
    text = value.strip().lower() if isinstance(value, str) else ""
    text = text.replace(" ", "_").replace("passed", "pass").replace("failed", "fail")
    return text if text in LABELS else "inconclusive"


def worst(verdicts: list[str]) -> str:
    """The most serious of `verdicts`; "not_run" when there is none."""
    ranked = [v if v in SEVERITY else "not_run" for v in verdicts]
    return max(ranked, key=SEVERITY.index, default="not_run")


def tensor_rows(source: Source, warnings: list[str]) -> list[Row]:
    """All entries of every part's `tensors`, in the order of the files, numbered from 1."""
    rows: list[Row] = []
    for part in source.usable():
        malformed = 0
        entries = as_list(part.data.get("tensors"))
        if not isinstance(part.data.get("tensors", []), list):
            warnings.append(f"{part.path}: \"tensors\" is not a list; it is ignored")
        for position, entry in enumerate(entries):
            if not isinstance(entry, dict):
                malformed += 1
                continue
            rows.append(_row(len(rows) + 1, part.name, position, entry))
        if malformed:
            warnings.append(f"{part.path}: {malformed} entries of \"tensors\" are not objects; they are ignored")
    return rows


def _row(number: int, part: str, position: int, entry: dict) -> Row:
    name, other = as_text(entry.get("name_ref")), as_text(entry.get("name_cand"))
    depth = as_number(entry.get("depth"))
    keys = ("shape", "dtype", "index", "step", "tolerance_source", "module_type", "hint", "gate", "origin", "less_accurate")
    reason = as_text(entry.get("reason"))
    return Row(
        number=number,
        part=part,
        stage=as_text(entry.get("stage")) or part,
        name=name or other or "(no name)",
        other=other if name and other != name else "",
        verdict=verdict_of(entry.get("verdict")),
        match=as_text(entry.get("match_method")),
        reason="" if reason == "ok" else reason,
        values={key: as_number(entry.get(key)) for key in NUMBERS},
        text={key: as_text(entry.get(key)) for key in keys} | {"shape": _shape(entry.get("shape"))},
        depth=float(position) if depth is None else depth,
    )


def _shape(value: object) -> str:
    """`1×116×40×40`; a 0-d tensor is a scalar."""
    if not isinstance(value, list):
        return as_text(value)
    return "×".join(as_text(size) for size in value) or "scalar"


def objections(data: dict) -> str:
    """Why the runs could not be compared at all, as one text."""
    entries = as_list(data.get("objections"))
    return "; ".join(as_text(e.get("text") or e.get("reason")) if isinstance(e, dict) else as_text(e) for e in entries)


def first_failure(data: dict) -> dict[str, str]:
    """`first_failure` of a result as text fields (name, stage, reason, hint); empty when there is none.

    `first_failure` is a name; `first_failure_detail`, where present, is the whole row.
    """
    value = data.get("first_failure")
    if value and isinstance(data.get("first_failure_detail"), dict):
        value = {**data["first_failure_detail"], **(value if isinstance(value, dict) else {"name": as_text(value)})}
    if not value:
        return {}
    if not isinstance(value, dict):
        return {"name": as_text(value)}
    name = next((as_text(value[k]) for k in ("name", "name_ref", "path", "tensor", "name_cand") if value.get(k)), "")
    found = {key: as_text(value.get(key)) for key in ("stage", "reason", "hint", "image", "step", "repro")}
    found["hint"] = found["hint"] or as_text(value.get("hints"))
    return {"name": name or as_text(value), **{key: text for key, text in found.items() if text}}
