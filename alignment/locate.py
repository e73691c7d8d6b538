"""Where the two sides part: the first node with an error of its own, checked against its neighbours, and a hint at the cause.

An error seen in the whole run may be inherited from an earlier node. So each node is run a second time on the *reference's* input; what differs then
is its own. The error need not grow with depth (it may cancel and return), so nothing here bisects: every node is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult

_GOOD = (Verdict.PASS, Verdict.WARN)


def combine(own: TensorResult, whole: TensorResult | None, inputs: Iterable[TensorResult] = (), *, module_type: str = "") -> TensorResult:
    """The row of one node: judged by `own` (output on the reference's input), with the error of the `whole` run beside it.

    `inputs` are the whole-run rows of the tensors the node reads; `amplification` is the relative L2 error that leaves the node over the largest
    that enters it, None where nothing enters.
    """
    row = replace(own, refed=True, own=own.max_abs, own_rel_l2=own.rel_l2, module_type=module_type or own.module_type)
    if whole is None:
        return row
    entering = max((one.rel_l2 for one in inputs if one.rel_l2 is not None), default=0.0)
    return replace(
        row, inherited=whole.max_abs, inherited_rel_l2=whole.rel_l2, inherited_verdict=whole.verdict,
        amplification=whole.rel_l2 / entering if whole.rel_l2 is not None and entering > 0 else None,
    )


@dataclass(frozen=True)
class Divergence:
    """The first divergence.

    `kind`: ``own`` (this node computes something else), ``between`` (no node does, yet the whole run parts here: the code between the nodes is at
    fault), ``whole`` (own errors were not measured; this is only the first difference in the whole run). `ratio` is error over tolerance.
    `confirmed`: the node before is clean and the one after inherits. `note` says what the neighbours show, `others` names further own errors.
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


def first_divergence(rows: Sequence[TensorResult], *, training: bool = False) -> Divergence | None:
    """The first divergence among `rows`, which stand in order of execution within each step; earlier steps come first. None when all agree.

    A `refed` row is judged by its own error. Missing, extra and misshaped tensors count as divergences like any other failed row; rows that were
    skipped or could not be decided do not, but the note mentions them when they come before the answer.
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
    confirmed, note = _verify(before, row, after, kind)
    unknown = [one.name_ref for one in order[:position] if one.verdict not in (*_GOOD, Verdict.FAIL)]
    if unknown:
        confirmed, note = False, f"{note}; not decided before it: {', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}"
    error = row.inherited if kind == "between" else row.max_abs
    return Divergence(
        name=row.name_ref, kind=kind, position=position, step=row.step, stage=row.stage, error=error, tolerance=row.tolerance,
        ratio=_over(error, row.tolerance), reason=row.reason, hint=row.hint, causes=cause_hints(row, training=training, kind=kind),
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


#: (pattern, part of the module's type or "" for any) -> what usually causes it. The first match by type comes first, then the general one.
CAUSES: tuple[tuple[Reason, str, str], ...] = (
    (Reason.CONSTANT_SCALE, "norm", "another eps, weight or variance in the normalisation"),
    (Reason.CONSTANT_SCALE, "pool", "another divisor, such as counting the padding"),
    (Reason.CONSTANT_SCALE, "loss", "another loss weight, or a sum where a mean belongs"),
    (Reason.CONSTANT_SCALE, "", "a scale factor, an eps or a mean against a sum"),
    (Reason.CHANNEL_AFFINE, "norm", "another eps, or other running statistics"),
    (Reason.CHANNEL_AFFINE, "", "a factor for each channel: mean and standard deviation of the input, or normalisation folded differently"),
    (Reason.CONSTANT_OFFSET, "", "a missing or extra bias"),
    (Reason.NEGATIVE_SIDE, "", "another negative slope of the activation"),
    (Reason.BORDER_ONLY, "conv", "another padding, or another padding mode"),
    (Reason.BORDER_ONLY, "pool", "padding counted or not, ceil for floor"),
    (Reason.BORDER_ONLY, "sample", "align_corners, or another rule at the edge"),
    (Reason.BORDER_ONLY, "", "padding, or align_corners in a resize"),
    (Reason.CHANNELS_PERMUTED, "conv", "weights grouped or ordered differently"),
    (Reason.CHANNELS_PERMUTED, "", "channel shuffle with groups and channels swapped, another order of concatenation, or BGR for RGB"),
    (Reason.SIGN_FLIPPED, "", "a subtraction the wrong way round"),
    (Reason.SATURATED, "", "a clip, a clamping activation, or a cast to a narrow integer"),
    (Reason.ALL_ZERO, "", "a detached branch, weights never loaded, or an output never written"),
    (Reason.TRANSPOSED, "linear", "a weight loaded transposed"),
    (Reason.TRANSPOSED, "", "height and width swapped, or axes in another order"),
    (Reason.REVERSED, "", "a flip, or a list walked backwards"),
    (Reason.PERMUTED, "", "another order of flattening or concatenation"),
    (Reason.ISOLATED, "", "an index, a tie or a boundary treated differently"),
    (Reason.ONE_SIDED, "", "a bias, or rounding in one direction"),
    (Reason.SHAPE, "pool", "ceil for floor in the output size"),
    (Reason.SHAPE, "", "another stride, padding, or ceil for floor in the output size"),
    (Reason.BROADCAST, "", "an axis that was reduced or kept where it should not be"),
    (Reason.DTYPE, "", "a missing or extra conversion"),
    (Reason.NOT_FINITE_CAND, "", "a division by zero, a logarithm of zero, or an overflow"),
    (Reason.NOT_FINITE_REF, "", "the reference itself overflows: look at its input"),
    (Reason.LESS_ACCURATE, "", "a sum in lower precision, or a formula that cancels"),
    (Reason.BEYOND_TOLERANCE, "sample", "nearest for bilinear, or align_corners"),
    (Reason.BEYOND_TOLERANCE, "norm", "running statistics, or training mode"),
    (Reason.BEYOND_TOLERANCE, "conv", "stride, dilation or groups, or other weights"),
)


def cause_hints(row: TensorResult, *, training: bool = False, kind: str = "own") -> tuple[str, ...]:
    """Likely causes of a failed row, most specific first. Hints, not findings; empty when no rule applies."""
    if kind == "between":
        return ("a function called outside a module (concatenation, addition, resize, slicing), or modules called in another order",)
    type_name = row.module_type.lower()
    found = [text for reason, part, text in CAUSES if reason is row.reason and part and part in type_name]
    found += [text for reason, part, text in CAUSES if reason is row.reason and not part]
    if training and "norm" in type_name:
        found.append("in training mode: another momentum, or the biased variance in the running statistics")
    if row.stage == "data" and row.reason in (Reason.CHANNELS_PERMUTED, Reason.REVERSED):
        found.insert(0, "BGR for RGB, or mean and standard deviation in the other order")
    if row.stage == "backward" and row.reason is Reason.ALL_ZERO:
        found.insert(0, "a detached branch")
    return tuple(dict.fromkeys(found))


def growth_hint(rows: Sequence[TensorResult]) -> str:
    """A hint from one tensor's rows over the training steps, or "". Errors that grow in every step from a clean start come from what is carried over."""
    steps = sorted((row for row in rows if row.step is not None and row.max_abs is not None), key=lambda row: row.step)
    if len(steps) < 3 or steps[0].failed or not steps[-1].failed:
        return ""
    errors = [row.max_abs for row in steps]
    if all(later > earlier for earlier, later in zip(errors, errors[1:])):
        return "clean at first and growing with every step: look at the optimiser's moments, weight decay, learning rate or running statistics"
    return ""
