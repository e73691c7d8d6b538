"""From two sides' answers to findings: equal within a measured floor, differs and how, missing, crashes, or unclear.

The floor is that of `alignment.noise`: PyTorch in float64 as the judge, in float32 as it is, with one thread, and with inputs moved by one ULP.
NaN and infinities must stand at the same places; what is finite in every run keeps to the bound. Integers must be equal; their width, and Jittor's lack
of 0-d arrays, count only in entries marked `strict` (they have some of their own). No gradient and a gradient of zeros are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignment import noise
from alignment.atlas import answers
from alignment.atlas.entry import PLAIN, Entry
from alignment.compare import compare_tensors
from alignment.reasons import Verdict

EQUAL, UNCLEAR, DIFFERS, MISSING, CRASHES, NONE = "equal", "unclear", "differs", "missing", "crashes", ""
#: From harmless to worst.
ORDER = (NONE, EQUAL, UNCLEAR, DIFFERS, MISSING, CRASHES)
#: Two samples of the same distribution look as different as this by chance once in a million.
CHANCE = 1e-6


@dataclass(frozen=True)
class Finding:
    """One thing that is not equal. `part`: ``forward``, or ``gradient x``. `text`: one sentence with both sides' values."""

    case: str
    part: str
    outcome: str
    how: str
    text: str


@dataclass
class Judged:
    """An entry's outcome: of its plain inputs forward and gradient, of its edges, and of all together."""

    entry: Entry
    findings: list[Finding] = field(default_factory=list)
    gradients: int = 0
    cases: int = 0
    ratio: float = 0.0

    def column(self, plain: bool, gradient: bool | None = None) -> str:
        if gradient and not self.gradients:
            return NONE
        if not plain and not self.entry.edges:
            return NONE
        found = [f.outcome for f in self.findings if (f.case in PLAIN) == plain and gradient in (None, f.part != "forward")]
        return max(found, key=ORDER.index, default=EQUAL)

    @property
    def forward(self) -> str:
        return self.column(True, False)

    @property
    def gradient(self) -> str:
        return self.column(True, True)

    @property
    def edges(self) -> str:
        return self.column(False)

    @property
    def outcome(self) -> str:
        """``missing`` only where ordinary inputs raise; an edge alone that raises makes an entry that differs."""
        plain = max(self.forward, self.gradient, key=ORDER.index)
        edges = DIFFERS if self.edges == MISSING else self.edges
        return max(plain, edges, key=ORDER.index)

    @property
    def first(self) -> Finding | None:
        """The finding to show: the worst of the plain inputs, else of the edges."""
        plain = [f for f in self.findings if f.case in PLAIN] or self.findings
        return max(plain, key=lambda f: ORDER.index(f.outcome), default=None)


def judge(entry: Entry, torch: dict[str, dict[str, Any]], jittor: dict[str, dict[str, Any]]) -> Judged:
    """`torch`, `jittor`: answers by case."""
    judged = Judged(entry)
    for case in entry.cases:
        judged.cases += 1
        _case(judged, case, torch[case], jittor[case])
    return judged


def _sentence(error: dict[str, Any]) -> str:
    """An exception in one line: without colours, times, places of this machine, and what Jittor says in every message."""
    text = re.sub(r"\x1b\[[0-9;]*m|\[f \d+ [^\]]*\] ", "", f"{error['type']}: {error['message']}")
    return re.sub(r"(?<!\S)/\S*/", "", re.split(r"(?:\.\.\.)? Could you please report| \*{5}| >>>| \[JIT Source\]", text)[0].strip())


def _case(judged: Judged, case: str, torch: dict[str, Any], jittor: dict[str, Any]) -> None:
    wrong, refused = jittor.get("error"), torch.get("error")
    if wrong and wrong["where"] == "process":
        judged.findings.append(Finding(case, "forward", CRASHES, wrong["type"], f"{wrong['message']}"))
        return
    if refused and refused["where"] == "forward":
        if not wrong:
            text = f"PyTorch refuses ({refused['message'][:80]}), Jittor returns {_shown(_arrays(jittor)[0]) if _arrays(jittor) else 'something'}"
            judged.findings.append(Finding(case, "forward", DIFFERS, "not_refused", text))
        return
    if wrong and wrong["where"] == "forward":
        judged.findings.append(Finding(case, "forward", MISSING, "raises", _sentence(wrong)))
        return
    if judged.entry.kind == "distribution":
        _distribution(judged, case, torch, jittor)
        return
    mine, theirs = _arrays(jittor), _arrays(torch)
    if len(mine) != len(theirs):
        judged.findings.append(Finding(case, "forward", DIFFERS, "count", f"{len(mine)} outputs, PyTorch {len(theirs)}"))
        return
    for number in range(len(theirs)):
        part = "forward" if len(theirs) == 1 else f"forward, output {number}"
        found = compare(judged, case, part, theirs[number], mine[number], *_floor_runs(torch, lambda a, n=number: _arrays(a)[n]))
        if found:
            judged.findings.append(found if found.part == "forward" else Finding(case, "forward", found.outcome, found.how, f"output {number}: {found.text}"))
            return  # what follows from another output is no second finding
    _gradients(judged, case, torch, jittor, wrong, refused)


def _gradients(judged: Judged, case: str, torch: dict, jittor: dict, wrong: dict | None, refused: dict | None) -> None:
    judged.gradients += bool(torch["gradients"]) or bool(refused)
    if wrong:
        if not refused and torch["gradients"]:
            judged.findings.append(Finding(case, "gradient", MISSING, "raises", f"backward: {_sentence(wrong)}"))
        return
    if refused:
        return
    for name, packed in torch["gradients"].items():
        ref, cand = answers.unpack(packed), answers.unpack(jittor["gradients"].get(name))
        if ref is None and cand is None:
            continue
        ref = np.zeros_like(cand) if ref is None else ref
        cand = np.zeros_like(ref) if cand is None else cand
        if ref.size == 0 and cand.size == 0 and ref.shape == cand.shape:
            continue
        found = compare(judged, case, f"gradient {name}", ref, cand, *_floor_runs(torch, lambda a, n=name: answers.unpack(a["gradients"].get(n))))
        if found:
            judged.findings.append(found)


def _arrays(answer: dict[str, Any]) -> list[np.ndarray]:
    return [answers.unpack(one) for one in answer["outputs"]]


def _floor_runs(torch: dict[str, Any], pick: Any) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """PyTorch's float64 run, if there is one, and its float32 runs under harmless changes."""
    def safe(answer: dict[str, Any]) -> np.ndarray | None:
        try:
            return None if "error" in answer else pick(answer)
        except (IndexError, KeyError):
            return None

    runs = {name: safe(answer) for name, answer in torch.get("variants", {}).items()}
    return safe(torch.get("double", {"error": 1})), {name: run for name, run in runs.items() if run is not None}


def compare(judged: Judged, case: str, part: str, ref: np.ndarray, cand: np.ndarray, truth: np.ndarray | None, runs: dict[str, np.ndarray]) -> Finding | None:
    """What is not equal between one pair of arrays, or None."""
    def found(outcome: str, how: str, text: str) -> Finding:
        return Finding(case, part, outcome, how, text)

    strict = judged.entry.strict
    if ref.shape != cand.shape and (strict or {ref.shape, cand.shape} != {(), (1,)}):
        return found(DIFFERS, "shape", f"shape {cand.shape}, PyTorch {ref.shape}")
    if ref.dtype != cand.dtype and (strict or ref.dtype.kind != cand.dtype.kind or ref.dtype.kind == "f"):
        return found(DIFFERS, "type", f"{cand.dtype}, PyTorch {ref.dtype}")
    ref, cand = ref.reshape(-1), cand.reshape(-1)
    if ref.size == 0:
        return None
    if ref.dtype.kind not in "fc":
        return _exactly(ref, cand, found)
    for what, test in (("nan", np.isnan), ("infinity", np.isposinf), ("infinity", np.isneginf)):
        at = np.flatnonzero(test(ref) != test(cand))
        if at.size:
            return found(DIFFERS, what, _at(int(at[0]), ref, cand))
    runs = {"as is": ref, **{name: run.reshape(-1) for name, run in runs.items() if run.size == ref.size}}
    truth = ref.astype(np.float64) if truth is None or truth.size != ref.size else truth.reshape(-1).astype(np.float64)
    kept = np.isfinite(cand) & np.isfinite(truth) & np.all([np.isfinite(run) for run in runs.values()], axis=0)
    if not kept.any():
        return None
    return _within(judged, found, ref, cand, truth, runs, np.flatnonzero(kept))


def _exactly(ref: np.ndarray, cand: np.ndarray, found: Any) -> Finding | None:
    at = np.flatnonzero(ref != cand)
    return found(DIFFERS, "exact", f"{_at(int(at[0]), ref, cand)} ({at.size} of {ref.size} differ)") if at.size else None


def _within(judged: Judged, found: Any, ref: np.ndarray, cand: np.ndarray, truth: np.ndarray, runs: dict[str, np.ndarray], kept: np.ndarray) -> Finding | None:
    scales = [np.ones(kept.size)]
    if judged.entry.relative:  # each element by its own size as well
        scales.append(np.where(truth[kept] != 0, np.abs(truth[kept]), 1.0))
    for scale in scales:
        def part(run: np.ndarray, scale: np.ndarray = scale) -> np.ndarray:
            # divided in float64; kept in the working type, whose ULP is the smallest bound
            return (run[kept].astype(np.float64) / scale).astype(run.dtype)

        floor = noise.measure_floor(truth[kept] / scale, [part(run) for run in runs.values()], list(runs), channel_axis=None)
        row = compare_tensors("x", part(ref), part(cand), tolerance=noise.tolerance_from_floor(floor), ref64=truth[kept] / scale)
        if row.tolerance:
            judged.ratio = max(judged.ratio, row.max_abs / row.tolerance)
        at = int(kept[row.index[0]]) if row.index else 0
        if row.verdict is Verdict.FAIL:
            return found(DIFFERS, "values" if scale is scales[0] else "small values", f"{_at(at, ref, cand)}; float64 {truth[at]:.9g}; bound {row.tolerance * scale[row.index[0]]:.2g}")
        if row.verdict is not Verdict.PASS and scale is scales[0]:
            return found(UNCLEAR, "floor", f"{_at(at, ref, cand)}; the bound {row.tolerance:.2g} is too wide to decide")
    return None


def _distribution(judged: Judged, case: str, torch: dict[str, Any], jittor: dict[str, Any]) -> None:
    from scipy import stats  # slow to import

    for number, (ref, cand) in enumerate(zip(_arrays(torch), _arrays(jittor))):
        if ref.shape != cand.shape:
            judged.findings.append(Finding(case, "forward", DIFFERS, "shape", f"shape {cand.shape}, PyTorch {ref.shape}"))
        elif (chance := float(stats.ks_2samp(ref.reshape(-1), cand.reshape(-1)).pvalue)) < CHANCE:
            spread = f"mean {cand.mean():.4g}, deviation {cand.std():.4g}; PyTorch {ref.mean():.4g}, {ref.std():.4g}"
            judged.findings.append(Finding(case, "forward", DIFFERS, "distribution", f"output {number}: {spread} (chance {chance:.1g})"))


def _shown(array: np.ndarray) -> str:
    return np.array2string(array.reshape(-1)[:4], precision=9, separator=", ", floatmode="maxprec") + (" ..." if array.size > 4 else "")


def _at(at: int, ref: np.ndarray, cand: np.ndarray) -> str:
    def text(value: Any) -> str:
        return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)

    return f"element {at}: {text(cand[at])}, PyTorch {text(ref[at])}"
