"""Rows, verdicts and ``result.json``.

How a run's verdict follows from its rows, first match wins:

1. an objection to the run itself (other inputs, other weights, stale, incomplete): ``not_comparable``, because its numbers mean nothing;
2. any failed row: ``fail``;
3. nothing compared, or a row that is ``not_comparable``: ``not_comparable``;
4. a row that is ``inconclusive``, or a share of compared rows below `Result.min_coverage`: ``inconclusive``;
5. otherwise ``pass``. There is no way to ``pass`` with zero compared rows.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.reasons import Gate, Reason, Verdict
from jt_nanodet.errors import UserError

SCHEMA_VERSION = 1
EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3, Verdict.NOT_COMPARABLE: 3}
LAST_LINES = {
    Verdict.PASS: "PASSED", Verdict.FAIL: "FAILED", Verdict.INCONCLUSIVE: "INCONCLUSIVE", Verdict.NOT_COMPARABLE: "NOT COMPARABLE",
}


@dataclass(frozen=True)
class TensorResult:
    """One row: a tensor pair, or any other check (then the numbers are None).

    `max_abs`, `own`, `inherited`, `floor`, `tolerance` are absolute, in the tensor's unit; `max_rel` and `rel_l2` are divided by the reference;
    `err_ref_fp64` and `err_cand_fp64` are root-mean-square errors against the float64 run, `less_accurate` is the side whose error is
    more than `noise.FLOAT64_RATIO` times the other's (``reference``, ``candidate``, or ``neither``); `float64_rel_l2` is how far both sides lie apart
    when each computes in float64. `floor_from` is the change under which the floor was widest, `scale` the reference's
    largest magnitude. `index` is where `max_abs` occurs. `gate` is the check
    that decided, `reason` what was found. `refed` rows are judged by `own`, the node's error on the reference's input; `inherited` is its error in the whole run,
    `entering_rel_l2` what entered the node there, `origin` where the whole run's error comes from (``own``, ``inherited``, ``amplified``, or none).
    """

    name_ref: str
    name_cand: str | None
    verdict: Verdict
    reason: Reason
    gate: Gate
    match_method: str = "exact"
    stage: str = "forward"
    step: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    size: int = 0
    max_abs: float | None = None
    max_rel: float | None = None
    index: tuple[int, ...] | None = None
    value_ref: float | int | None = None
    value_cand: float | int | None = None
    beyond: int | None = None
    rel_l2: float | None = None
    rmse: float | None = None
    cosine: float | None = None
    sqnr_db: float | None = None
    ulp_p99: float | None = None
    worst_channel: int | None = None
    err_ref_fp64: float | None = None
    err_cand_fp64: float | None = None
    less_accurate: str = ""
    float64_rel_l2: float | None = None
    refed: bool = False
    own: float | None = None
    own_rel_l2: float | None = None
    inherited: float | None = None
    inherited_rel_l2: float | None = None
    inherited_verdict: Verdict | None = None
    entering_rel_l2: float | None = None
    origin: str = ""
    amplification: float | None = None
    floor: float | None = None
    floor_from: str = ""
    scale: float | None = None
    tolerance: float | None = None
    tolerance_source: str | None = None
    constant: bool = False
    hint: str = ""
    module_type: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict is Verdict.FAIL

    @property
    def key(self) -> tuple[str, str, int | None]:
        """What makes a row unique in a result."""
        return (self.stage, self.name_ref, self.step)

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def check_row(name: str, ok: bool, reason: Reason, hint: str = "", *, stage: str = "check", step: int | None = None) -> TensorResult:
    """A row for a check that is not a tensor pair, such as one line of the structure or one COCO number. `reason` is used when it fails."""
    verdict, why = (Verdict.PASS, Reason.OK) if ok else (Verdict.FAIL, reason)
    return TensorResult(name, name, verdict, why, Gate.EXACT, stage=stage, step=step, hint=hint)


@dataclass
class Result:
    """What one command found. Add rows, then `alignment.cli.finish` (or `write`).

    `parts` are further top-level entries of ``result.json`` (``metrics``, ``detections``, ``fps``, ``structure`` ...). `not_run` lists what lay
    outside this run (no GPU, no annotations): it is shown, and does not count. A `skip` is something this run should have compared: it lowers
    the coverage. `tolerances`, when given, is the table that was declared before comparing; a row judged by a wider bound fails.
    """

    command: str
    device: str = "cpu"
    seeds: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    min_coverage: float = 1.0
    tolerances: Mapping[str, Any] | None = None
    tensors: list[TensorResult] = field(default_factory=list)
    objections: list[dict[str, str]] = field(default_factory=list)
    not_run: list[dict[str, str]] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    expected: set[str] = field(default_factory=set)

    def add(self, row: TensorResult | Iterable[TensorResult]) -> None:
        """Take one row or several. A second verdict for the same tensor never replaces the first: the pair becomes a failure."""
        if not isinstance(row, TensorResult):
            for one in row:
                self.add(one)
            return
        if self.tolerances is not None and row.tolerance is not None:
            declared = self.tolerances.get(row.name_ref)
            # A bound of zero loosens nothing: discrete rows carry it without being in the table.
            if row.tolerance > (declared.bound if declared is not None else 0.0):
                row = dataclasses.replace(
                    row, verdict=Verdict.FAIL, reason=Reason.TOLERANCE_CHANGED, gate=Gate.RUN,
                    hint=f"judged by {row.tolerance:.3g}, but the declared bound is {'absent' if declared is None else format(declared.bound, '.3g')}",
                )
        if any(row.key == known.key for known in self._same_name(row)):
            row = dataclasses.replace(
                row, verdict=Verdict.FAIL, reason=Reason.CHECKED_TWICE, gate=Gate.RUN, hint="a tensor may be judged once; a repeated check hides a flaky one",
            )
        self.tensors.append(row)
        self._names.setdefault(row.name_ref, []).append(row)

    def check(self, name: str, ok: bool, reason: Reason, hint: str = "", *, stage: str = "check") -> None:
        """Add the outcome of a check that is not a tensor pair."""
        self.add(check_row(name, ok, reason, hint, stage=stage))

    def skip(self, name: str, reason: str, *, stage: str = "check") -> None:
        """Record something that should have been compared and was not; it counts against the coverage."""
        self.add(TensorResult(name, None, Verdict.SKIP, Reason.NOT_RUN, Gate.RUN, stage=stage, hint=reason))

    def leave_out(self, name: str, reason: str) -> None:
        """Record something outside this run, such as a GPU on a machine without one."""
        self.not_run.append({"name": name, "reason": reason})

    def object(self, reason: Reason, text: str) -> None:
        """Record why the runs may not be compared at all (see `alignment.bundle.comparable`)."""
        self.objections.append({"reason": str(reason), "text": text})

    def expect(self, names: Iterable[str]) -> None:
        """Announce rows. One that never arrives fails as ``not_checked``: a check that is not called must not look like one that passed."""
        self.expected.update(names)

    def __post_init__(self) -> None:
        rows, self.tensors, self._names = self.tensors, [], {}
        self.add(rows)

    def _same_name(self, row: TensorResult) -> list[TensorResult]:
        return self._names.get(row.name_ref, [])

    def row(self, name: str) -> TensorResult | None:
        """The first row of that name."""
        return next(iter(self._names.get(name, [])), None)

    def rows(self) -> list[TensorResult]:
        """All rows, with one failed row for every announced name that never arrived."""
        absent = sorted(self.expected - set(self._names))
        return self.tensors + [
            TensorResult(name, None, Verdict.FAIL, Reason.NOT_CHECKED, Gate.RUN, stage="check", hint="this check was announced and never made")
            for name in absent
        ]

    def _count(self, *verdicts: Verdict) -> int:
        return sum(row.verdict in verdicts for row in self.rows())

    @property
    def compared(self) -> int:
        """Rows on which something was decided, or tried to be; a missing tensor counts, a skipped one does not."""
        return self._count(Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.INCONCLUSIVE)

    @property
    def failed(self) -> int:
        return self._count(Verdict.FAIL)

    @property
    def skipped(self) -> int:
        return self._count(Verdict.SKIP, Verdict.NOT_COMPARABLE)

    @property
    def coverage(self) -> float:
        """Compared rows over all rows; 0 when there is none."""
        total = self.compared + self.skipped
        return self.compared / total if total else 0.0

    @property
    def verdict(self) -> Verdict:
        if self.objections:
            return Verdict.NOT_COMPARABLE
        if self.failed:
            return Verdict.FAIL
        if self.compared == 0 or self._count(Verdict.NOT_COMPARABLE):
            return Verdict.NOT_COMPARABLE
        if self._count(Verdict.INCONCLUSIVE) or self.coverage < self.min_coverage:
            return Verdict.INCONCLUSIVE
        return Verdict.PASS

    @property
    def reason(self) -> Reason:
        """The one reason behind the verdict."""
        if self.objections:
            return Reason(self.objections[0]["reason"])
        for verdict in (Verdict.FAIL, Verdict.NOT_COMPARABLE, Verdict.INCONCLUSIVE):
            for row in self.rows():
                if row.verdict is verdict:
                    return row.reason
        if self.compared == 0:
            return Reason.NOTHING_COMPARED
        return Reason.COVERAGE if self.coverage < self.min_coverage else Reason.OK

    @property
    def first_failure(self) -> TensorResult | None:
        """The first failed row, in the order in which rows were added, which is the order of execution."""
        return next((row for row in self.rows() if row.failed), None)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def last_line(self) -> str:
        return f"{LAST_LINES[self.verdict]} | {self.compared} compared, {self.failed} failed, {self.skipped} skipped"

    def to_json(self) -> dict[str, Any]:
        """The content of ``result.json``, free of bare NaN and infinity. `first_failure` is a name or null."""
        first = self.first_failure
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION, "command": self.command, "verdict": str(self.verdict), "reason": str(self.reason),
            "compared": self.compared, "failed": self.failed, "skipped": self.skipped,
            "first_failure": first.name_ref if first else None,
            "first_failure_detail": first.to_json() if first else None,
            "objections": self.objections, "coverage": self.coverage, "min_coverage": self.min_coverage,
            "constant_tensors": sum(row.constant for row in self.tensors), "device": self.device, "seeds": self.seeds, "versions": self.versions,
            "hashes": self.hashes, "durations": self.durations, "not_run": self.not_run,
        }
        taken = sorted(set(self.parts) & (set(document) | {"tensors"}))
        if taken:
            raise ValueError(f"these entries of result.json are not free: {', '.join(taken)}")
        document.update(self.parts)
        document["tensors"] = [row.to_json() for row in self.rows()]
        return plain(document)

    def write(self, folder: str | Path) -> Path:
        """Write ``folder/result.json`` under a temporary name, then rename it. UserError when the folder cannot be written."""
        return write_json(Path(folder) / "result.json", self.to_json())


def plain(value: Any) -> Any:
    """Turn numpy scalars, arrays, enums, tuples and paths into plain JSON; NaN and infinities into the words "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, (Verdict, Reason, Gate)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def write_json(path: Path, document: Any) -> Path:
    """Write JSON atomically. UserError when `path` cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(document, allow_nan=False, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); give a folder you can write to with --output.") from error
    finally:
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            pass
    return path


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a ``result.json`` (or the folder that holds one). UserError when it is missing, damaged, of another version, or contradicts itself."""
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    again = f"run the command again with --output {path.parent}"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {again}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); {again}.") from error
    needed = {"schema_version", "command", "verdict", "compared", "failed", "skipped", "first_failure"}
    if not isinstance(document, dict) or not needed <= document.keys():
        raise UserError(f"{path} is not a result of `python -m alignment.X`; {again}.")
    if document["schema_version"] != SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {document['schema_version']}, and this program reads {SCHEMA_VERSION}; {again}.")
    if document["verdict"] == str(Verdict.PASS) and (not document["compared"] or document["failed"]):
        raise UserError(f"{path} says pass with {document['compared']} compared and {document['failed']} failed; {again}.")
    return document
