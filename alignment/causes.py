"""What usually causes a failure of this kind: a rule base over what the comparison found. Hints, not findings.

A rule looks at a failed row, and at what is known around it: the same tensor in evaluation mode, and over the steps of a training. The more
special rules stand first. `tests/alignment/test_causes.py` plants each fault and holds that the rule speaks there, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignment.reasons import Reason, Verdict
from alignment.result import TensorResult

#: Rounding to 7 to 10 bits inside a sum leaves a relative L2 error in this range.
HALF_RANGE = (2.0 ** -14, 2.0 ** -7)
#: How far ``2 (1 - cosine)`` may lie from the squared relative error where the error has nothing to do with the values (then they are equal).
UNRELATED = 0.1
#: One tensor over the steps of a training: (step, largest difference or None, failed), in any order.
History = Sequence[tuple[int, float | None, bool]]


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at. `evaluated` is the same call's row in evaluation mode, None where it was not compared."""

    row: TensorResult
    training: bool = False
    evaluated: TensorResult | None = None
    history: History = ()


@dataclass(frozen=True)
class Rule:
    """`name` for files, `text` for people. It speaks where the row has the `reason` (None: any), its module's type holds one of `types`, its
    stage is one of `stages` (empty: any), and `when` agrees."""

    name: str
    text: str
    reason: Reason | None = None
    types: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    when: Callable[[Evidence], bool] = lambda evidence: True

    def speaks(self, evidence: Evidence) -> bool:
        row, kind = evidence.row, evidence.row.module_type.lower()
        return (self.reason in (None, row.reason) and (not self.stages or row.stage in self.stages)
                and (not self.types or any(part in kind for part in self.types)) and self.when(evidence))


def grows(evidence: Evidence) -> bool:
    """Clean in the first step, and a larger difference in each one after it."""
    steps = sorted((one for one in evidence.history if one[1] is not None), key=lambda one: one[0])
    if len(steps) < 3 or steps[0][2] or not steps[-1][2]:
        return False
    return all(later[1] > earlier[1] for earlier, later in zip(steps, steps[1:]))


def train_mode_only(evidence: Evidence) -> bool:
    """In evaluation mode the same call agrees."""
    return evidence.training and evidence.evaluated is not None and evidence.evaluated.verdict in (Verdict.PASS, Verdict.WARN)


def half_inside(evidence: Evidence) -> bool:
    """An error of the size of rounding to some ten bits, that has nothing to do with the values it sits on."""
    row = evidence.row
    if row.rel_l2 is None or row.cosine is None or not HALF_RANGE[0] <= row.rel_l2 <= HALF_RANGE[1]:
        return False
    return abs(2 * (1 - row.cosine) / row.rel_l2 ** 2 - 1) <= UNRELATED


R = Reason
RULES: tuple[Rule, ...] = (
    # What the circumstances say.
    Rule("grows over steps", "clean at first and growing with every step: look at the optimiser's moments, weight decay, learning rate or running statistics", when=grows),
    Rule("train mode only", "equal in evaluation mode: batch statistics, the biased variance, momentum, or dropout", types=("norm", "dropout"), when=train_mode_only),
    Rule("zero gradient", "a detached branch, or a parameter that is not trained", R.ALL_ZERO, stages=("backward",)),
    Rule("half precision output", "a conversion to half precision, an autocast, or TF32 on the way out", R.LOW_PRECISION),
    Rule("half precision inside", "products of inputs rounded to half precision or TF32, summed in float32: autocast, or allow_tf32", R.BEYOND_TOLERANCE,
         types=("conv", "linear", "attention", "matmul"), when=half_inside),
    Rule("pixels", "BGR for RGB, or mean and standard deviation in the other order", R.CHANNELS_PERMUTED, stages=("data",)),
    Rule("pixels reversed", "BGR for RGB, or a picture that was flipped", R.REVERSED, stages=("data",)),
    # What the kind of layer says.
    Rule("scale of a norm", "another eps, weight or variance in the normalisation", R.CONSTANT_SCALE, types=("norm",)),
    Rule("divisor of a pool", "another divisor, such as counting the padding", R.CONSTANT_SCALE, types=("pool",)),
    Rule("scale of a loss", "another loss weight, or a sum where a mean belongs", R.CONSTANT_SCALE, types=("loss",)),
    Rule("statistics of a norm", "another eps, or other running statistics", R.CHANNEL_AFFINE, types=("norm",)),
    Rule("border of a convolution", "another padding, or another padding mode", R.BORDER_ONLY, types=("conv",)),
    Rule("border of a pool", "padding counted or not, ceil for floor", R.BORDER_ONLY, types=("pool",)),
    Rule("border of a resize", "align_corners, or another rule at the edge", R.BORDER_ONLY, types=("sample",)),
    Rule("order of channels", "weights grouped or ordered differently", R.CHANNELS_PERMUTED, types=("conv",)),
    Rule("transposed weight", "a weight loaded transposed", R.TRANSPOSED, types=("linear",)),
    Rule("size of a pool", "ceil for floor in the output size", R.SHAPE, types=("pool",)),
    Rule("resize", "nearest for bilinear, or align_corners", R.BEYOND_TOLERANCE, types=("sample",)),
    Rule("norm", "running statistics, or training mode", R.BEYOND_TOLERANCE, types=("norm",)),
    Rule("convolution", "stride, dilation or groups, or other weights", R.BEYOND_TOLERANCE, types=("conv",), when=lambda evidence: not half_inside(evidence)),
    # What the pattern alone says.
    Rule("constant ratio", "a scale factor, an eps or a mean against a sum", R.CONSTANT_SCALE),
    Rule("a factor for each channel", "a factor for each channel: mean and standard deviation of the input, or normalisation folded differently", R.CHANNEL_AFFINE),
    Rule("constant offset", "a missing or extra bias", R.CONSTANT_OFFSET),
    Rule("negative side", "another negative slope of the activation", R.NEGATIVE_SIDE),
    Rule("borders only", "padding, or align_corners in a resize", R.BORDER_ONLY),
    Rule("permuted channels", "channel shuffle with groups and channels swapped, another order of concatenation, or BGR for RGB", R.CHANNELS_PERMUTED),
    Rule("sign flip", "a subtraction the wrong way round", R.SIGN_FLIPPED),
    Rule("saturated", "a clip, a clamping activation, or a cast to a narrow integer", R.SATURATED),
    Rule("all zero", "a detached branch, weights never loaded, or an output never written", R.ALL_ZERO, when=lambda evidence: evidence.row.stage != "backward"),
    Rule("transposed", "height and width swapped, or axes in another order", R.TRANSPOSED),
    Rule("reversed", "a flip, or a list walked backwards", R.REVERSED),
    Rule("permuted", "another order of flattening or concatenation", R.PERMUTED),
    Rule("isolated", "an index, a tie or a boundary treated differently", R.ISOLATED),
    Rule("one-sided", "a bias, or rounding in one direction", R.ONE_SIDED),
    Rule("shape", "another stride, padding, or ceil for floor in the output size", R.SHAPE),
    Rule("broadcast", "an axis that was reduced or kept where it should not be", R.BROADCAST),
    Rule("type", "a missing or extra conversion", R.DTYPE),
    Rule("not finite", "a division by zero, a logarithm of zero, or an overflow", R.NOT_FINITE_CAND),
    Rule("reference not finite", "the reference itself overflows: look at its input", R.NOT_FINITE_REF),
    Rule("less accurate", "a sum in lower precision, or a formula that cancels", R.LESS_ACCURATE),
)


def speaking(evidence: Evidence) -> list[Rule]:
    """The rules that speak, most special first."""
    return [rule for rule in RULES if rule.speaks(evidence)]


def cause_hints(row: TensorResult, *, training: bool = False, evaluated: TensorResult | None = None, history: History = ()) -> tuple[str, ...]:
    """Likely causes of a failed row, most special first; empty when no rule applies."""
    return tuple(dict.fromkeys(rule.text for rule in speaking(Evidence(row, training, evaluated, history))))
