"""Element by element: arithmetic, functions, comparisons, rounding."""

from __future__ import annotations

from alignment.atlas.entry import ELEMENTWISE, Entry, integers, normal, uniform

FUNCTIONS = ("nan", "inf", "far", "tiny")


def one(name: str, torch: str = "", jittor: str = "", x: str = normal(3, 4), edges: tuple[str, ...] = FUNCTIONS, **more) -> Entry:
    return Entry(name, torch or f"torch.{name}(x)", jittor, {"x": x}, edges=edges, **{"relative": True, **more})


def pair(name: str, torch: str, jittor: str = "", x: str = normal(3, 4), y: str = normal(3, 4), edges: tuple[str, ...] = ("nan", "inf"), **more) -> Entry:
    return Entry(name, torch, jittor, {"x": x, "y": y}, edges=edges, **{"relative": True, **more})


POSITIVE, INSIDE = uniform(0.1, 4, 3, 4), uniform(-0.95, 0.95, 3, 4)
ENTRIES = [
    pair("add", "x + y", edges=ELEMENTWISE[:7], edge_of=("x", "y")),
    pair("multiply", "x * y", edges=("nan", "inf", "huge", "tiny")),
    pair("divide", "x / y", edges=("nan", "inf", "huge", "tiny")),
    pair("divide by zero", "x / (y * 0)", grad=()),
    pair("broadcast, (3, 1) with (4,)", "x + y", x=normal(3, 1), y=normal(4)),
    pair("maximum", "torch.maximum(x, y)", edges=("nan", "inf", "ties"), edge_of=("x", "y")),
    pair("minimum", "torch.minimum(x, y)", edges=("nan", "inf", "ties"), edge_of=("x", "y")),
    pair("pow", "x ** y", x=POSITIVE, edges=("nan", "huge")),
    pair("pow, negative base", "x ** 3", edges=("nan", "huge")),
    pair("pow, negative base, fraction", "x ** 0.5", grad=()),
    pair("floor_divide", "torch.floor_divide(x, y)", grad=(), smooth=False),
    pair("floor_divide, integers", "torch.floor_divide(x, y)", x=integers(9, 3, 4, low=-9), y="np.array([2, -2, 3, -3], 'int32')", edges=()),
    pair("remainder", "x % y", smooth=False, grad=(), edges=()),
    pair("remainder, integers", "x % y", x=integers(9, 3, 4, low=-9), y="np.array([2, -2, 3, -3], 'int32')", edges=()),
    pair("fmod", "torch.fmod(x, y)", smooth=False, grad=()),
    pair("atan2", "torch.atan2(x, y)", edges=("nan", "inf", "ties"), edge_of=("x", "y")),
    pair("hypot", "torch.hypot(x, y)", edges=("huge",)),
    pair("lerp", "torch.lerp(x, y, 0.3)"),
    one("abs", "x.abs()", edges=ELEMENTWISE),
    one("sign", "torch.sign(x)", "nn.sign(x)", edges=("nan", "inf", "ties"), grad=()),
    one("sqrt", x=POSITIVE, edges=("nan", "inf", "huge", "tiny")),
    one("sqrt of negatives", "torch.sqrt(-x)", x=POSITIVE, grad=(), edges=()),
    one("rsqrt", x=POSITIVE, edges=("nan", "inf", "tiny")),
    one("square", "torch.square(x)", "jt.sqr(x)", edges=("nan", "huge", "tiny")),
    one("reciprocal", "1 / x", edges=("nan", "inf", "ties", "tiny")),
    one("exp"),
    one("expm1"),
    one("log", x=POSITIVE, edges=("nan", "inf", "huge", "tiny")),
    one("log of zero and negatives", "torch.log(torch.round(x))", "jt.log(jt.round(x))", grad=(), edges=()),
    one("log2", x=POSITIVE, edges=("nan", "inf", "huge")),
    one("log1p", x=POSITIVE, edges=("tiny", "huge")),
    one("sin", edges=("nan", "inf", "far")),
    one("cos", edges=("nan", "inf", "far")),
    one("tan", x=INSIDE, edges=("nan",)),
    one("asin", x=INSIDE, edges=("nan", "far")),
    one("acos", x=INSIDE, edges=("nan", "far")),
    one("atan"),
    one("sinh", edges=("nan", "far", "tiny")),
    one("cosh", edges=("nan", "far")),
    one("erf"),
    one("erfinv", x=INSIDE, edges=("nan",)),
    one("lgamma", x=POSITIVE, edges=()),
    one("digamma", x=POSITIVE, edges=()),
    one("floor", smooth=False, edges=("nan", "inf", "ties", "huge")),
    one("ceil", smooth=False, edges=("nan", "inf", "ties", "huge")),
    one("round", smooth=False, edges=("nan", "inf", "huge")),
    one("round, halves", "torch.round(x)", x="np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], 'float32')", smooth=False, edges=()),
    one("trunc", smooth=False, edges=()),
    one("clamp", "torch.clamp(x, -0.5, 0.5)", edges=ELEMENTWISE),
    one("clamp, gradient at the ends", "torch.clamp(torch.round(x), -1.0, 1.0) * x", "jt.clamp(jt.round(x), -1.0, 1.0) * x", edges=()),
    one("clamp, gradient at the bound itself", "torch.clamp(x, -1.0, 1.0)", x="np.array([-1.0, 0.0, 1.0], 'float32')", edges=(), smooth=False),
    one("clamp, min only", "torch.clamp(x, 0.1)", edges=("nan",)),
    one("clamp, max only", "torch.clamp(x, None, 0.1)", edges=("nan",)),
    one("clamp, by PyTorch's names of the bounds", "torch.clamp(x, min=-0.5, max=0.5)", edges=()),
    one("nan_to_num", "torch.nan_to_num(x)", edges=("nan", "inf")),
    one("isnan", edges=("nan", "inf"), grad=()),
    one("isinf", edges=("nan", "inf"), grad=()),
    one("isfinite", edges=("nan", "inf"), grad=()),
    pair("comparisons", "x < y, x <= y, x > y, x >= y, x == y, x != y", grad=(), edges=("nan", "inf", "ties"), edge_of=("x", "y")),
    pair("logical operators", "torch.logical_and(x > 0, y > 0), torch.logical_or(x > 0, y > 0), torch.logical_xor(x > 0, y > 0), torch.logical_not(x > 0)", grad=(), edges=("nan",)),
    pair("bitwise operators", "x & y, x | y, x ^ y", x=integers(99, 3, 4, low=-99), y=integers(99, 3, 4, low=-99), edges=()),
    pair("shifts", "x << 2, x >> 1", x=integers(99, 3, 4, low=-99), y=integers(9, 1), edges=()),
    pair("where", "torch.where(x > 0, x, y)", edges=("nan", "inf", "ties")),
    pair("where, NaN on the side not taken", "torch.where(x > 0, torch.sqrt(x), y)", edges=()),
    one("a small number times a small number", "x * x", x="np.array([1e-20, 3e-20, 1e-22], 'float32')", edges=()),
    one("NaN is not itself", "(x * float('nan')) == (x * float('nan'))", grad=(), edges=()),
]
