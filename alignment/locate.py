"""Where the two sides part: the first node with an error of its own, checked against its neighbours, and a hint at the cause.

An error seen in the whole run may be inherited from an earlier node. So each node is run a second time on the *reference's* input; what differs then
is its own. The error need not grow with depth (it may cancel and return), so nothing here bisects: every node is looked at. `causes` has the hints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignment.causes import History, cause_hints
from alignment.noise import AMPLIFIES, FACTOR, OWN_REL_L2_CAP
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult

__all__ = ["Divergence", "cause_hints", "combine", "first_divergence", "replace"]
_GOOD = (Verdict.PASS, Verdict.WARN)


def combine(
    own: TensorResult, whole: TensorResult | None, inputs: Iterable[TensorResult] = (), *, module_type: str = "", entering: float | None = None,
) -> TensorResult:
    """The row of one node: judged by `own` (output on the reference's input), with the error of the `whole` run beside it.

    `inputs` are the whole-run rows of the tensors the node reads; `entering` is the largest relative L2 error among them where it was measured on
    the inputs themselves (which sees a concatenation made outside a module too). `amplification` is the relative L2 error that leaves the node
    over the largest that enters it, None where nothing enters. `origin` says where the whole run's error comes from: ``own``, ``inherited``, ``amplified``.
    """
    row = replace(own, refed=True, own=own.max_abs, own_rel_l2=own.rel_l2, module_type=module_type or own.module_type)
    row = replace(row, origin="own" if own.failed else "")
    if whole is None:
        return row
    if entering is None:
        entering = max((one.rel_l2 for one in inputs if one.rel_l2 is not None), default=0.0)
    amplification = whole.rel_l2 / entering if whole.rel_l2 is not None and entering > 0 else None
    if whole.failed and not own.failed:
        row = replace(row, origin="amplified" if _amplifies(own, whole, entering, amplification) else "inherited")
    return replace(
        row, inherited=whole.max_abs, inherited_rel_l2=whole.rel_l2, inherited_verdict=whole.verdict, entering_rel_l2=entering, amplification=amplification,
    )


def _amplifies(own: TensorResult, whole: TensorResult, entering: float, amplification: float | None) -> bool:
    """Whether the node itself explains that so much leaves it: its own floor says how far one ULP of its input moves its output."""
    if amplification is None or amplification < AMPLIFIES or own.floor is None or whole.rmse is None or not own.dtype:
        return False
    ulps = max(entering / float(np.finfo(own.dtype).eps), 1.0)
    return whole.rmse <= FACTOR * ulps * own.floor


#: The cause where no node is at fault by itself.
HINTS = {
    "between": "a function called outside a module (concatenation, addition, resize, slicing), or modules called in another order",
    "amplification": "an ill-conditioned step: a small variance, a difference of like numbers, a division by a small number",
}


@dataclass(frozen=True)
class Divergence:
    """The first divergence.

    `kind`: ``own`` (this node computes something else), ``amplification`` (no node does; what enters this one is rounding, and it makes more of
    it than the floor allows), ``between`` (no node does, yet the whole run parts here: the code between the nodes is at fault), ``whole`` (own
    errors were not measured; this is only the first difference in the whole run). `ratio` is error over tolerance. `confirmed`: the node before
    is clean and the one after inherits. `note` says what the neighbours show, `others` names further own errors.
    """

    name: str
    kind: str
    position: int
    step: int | None
    stage: str
    error: float | None
    tolerance: float | None
    ratio: float | None
    reason: Reason
    hint: str
    causes: tuple[str, ...]
    before: str | None
    after: str | None
    confirmed: bool
    note: str
    others: tuple[str, ...] = ()


def first_divergence(
    rows: Sequence[TensorResult], *, training: bool = False, evaluated: Mapping[str, TensorResult] | None = None, histories: Mapping[str, History] | None = None,
) -> Divergence | None:
    """The first divergence among `rows`, which stand in order of execution within each step; earlier steps come first. None when all agree.

    A `refed` row is judged by its own error. Missing, extra and misshaped tensors count as divergences like any other failed row; rows that were
    skipped or could not be decided do not, but the note mentions them when they come before the answer. `evaluated` (rows of the same names in
    evaluation mode) and `histories` (one tensor over the steps) are further evidence for the hints.
    """
    order = sorted(rows, key=lambda row: -1 if row.step is None else row.step)
    failed = [position for position, row in enumerate(order) if row.failed]
    if any(row.refed for row in order):
        # Whole-run rows may merely inherit; beside own errors only a missing or extra tensor is a finding of its own.
        answers, kind = [p for p in failed if order[p].refed or order[p].gate is Gate.KEYS], "own"
        if not answers:
            answers, kind = [p for p, row in enumerate(order) if row.inherited_verdict is Verdict.FAIL], "between"
        if not answers:
            answers, kind = failed, "whole"
    else:
        answers, kind = failed, "whole"
    if not answers:
        return None
    position = answers[0]
    row = order[position]
    before, after = _neighbour(order, position, -1), _neighbour(order, position, +1)
    if kind == "between" and row.origin == "amplified" and row.entering_rel_l2 <= OWN_REL_L2_CAP:
        kind = "amplification"
    confirmed, note = _verify(before, row, after, kind)
    unknown = [one.name_ref for one in order[:position] if one.verdict not in (*_GOOD, Verdict.FAIL)]
    if unknown:
        confirmed, note = False, f"{note}; not decided before it: {', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}"
    error = row.inherited if kind in HINTS else row.max_abs
    causes = (HINTS[kind],) if kind in HINTS else cause_hints(
        row, training=training, evaluated=(evaluated or {}).get(row.name_ref), history=(histories or {}).get(row.name_ref, ()))
    return Divergence(
        name=row.name_ref, kind=kind, position=position, step=row.step, stage=row.stage, error=error, tolerance=row.tolerance,
        ratio=_over(error, row.tolerance), reason=row.reason, hint=row.hint, causes=causes,
        before=before.name_ref if before else None, after=after.name_ref if after else None, confirmed=confirmed, note=note,
        others=tuple(order[p].name_ref for p in answers[1:]) if kind == "own" else (),
    )


def _neighbour(order: Sequence[TensorResult], position: int, way: int) -> TensorResult | None:
    """The nearest row of the same step on that side that was looked at."""
    step = order[position].step
    position += way
    while 0 <= position < len(order) and order[position].step == step:
        if order[position].verdict is not Verdict.SKIP:
            return order[position]
        position += way
    return None


def _verify(before: TensorResult | None, row: TensorResult, after: TensorResult | None, kind: str) -> tuple[bool, str]:
    if kind == "whole":
        return False, "own errors were not measured, so the node may inherit this difference"
    clean = before is None or (before.verdict in _GOOD and before.inherited_verdict is not Verdict.FAIL)
    notes = ["nothing comes before it" if before is None else f"{before.name_ref} before it is {'clean' if clean else 'not clean in the whole run'}"]
    if kind == "amplification":
        notes.append(f"a relative difference of {row.entering_rel_l2:.2g} enters and {row.inherited_rel_l2:.2g} leaves it")
        return clean, "; ".join(notes)
    if kind == "between":
        notes.append("every node agrees on the reference's input, so the code that connects them differs")
        return clean, "; ".join(notes)
    if after is None:
        notes.append("nothing comes after it")
    elif after.failed:
        notes.append(f"{after.name_ref} after it has an error of its own as well")
    elif after.inherited_verdict is Verdict.FAIL:
        notes.append(f"{after.name_ref} after it only inherits")
    elif after.inherited_verdict is not None:
        notes.append(f"the error has vanished again at {after.name_ref}")
    return clean, "; ".join(notes)


def _over(error: float | None, tolerance: float | None) -> float | None:
    if error is None or tolerance is None:
        return None
    return error / tolerance if tolerance else math.inf
