"""Types and their promotion; here types and 0-d shapes count."""

from __future__ import annotations

from alignment.atlas.entry import Entry, integers, normal


def of(name: str, torch: str, jittor: str = "", x: str = integers(9, 4, low=-9), y: str = "np.float32([0.5, 1.5, -2.5, 3.0])", **more) -> Entry:
    return Entry(name, torch, jittor, {"x": x, "y": y}, grad=(), **{"strict": True, **more})


HALF, LONG, DOUBLE = "r.randn(4).astype('float16')", "np.array([1, 2**40, -3, 4], 'int64')", "r.randn(4)"
ENTRIES = [
    of("int32 + float32", "x + y"),
    of("int32 / int32", "x / 2"),
    of("int32 * python float", "x * 0.5"),
    of("int32 + python int", "x + 1"),
    of("float32 + python int", "y + 1"),
    of("bool + bool", "(x > 0) + (y > 0)"),
    of("bool * float32", "(x > 0) * y"),
    of("bool + int32", "(x > 0) + x"),
    of("- bool", "-(x > 0)", refused=True),
    of("uint8 + uint8 wraps", "x + x", x="np.array([200, 100], 'uint8')"),
    of("uint8 - int", "x - 201", x="np.array([200, 100], 'uint8')"),
    of("int8 * int8 wraps", "x * x", x="np.array([100, -100], 'int8')"),
    of("int16 + int32", "x + x.int()", x="np.array([1, 2], 'int16')"),
    of("float16 + float32", "x + y", x=HALF),
    of("float16 * python float", "x * 0.1", x=HALF),
    of("float16, matmul", "x.reshape(2, 2) @ x.reshape(2, 2)", x=HALF),
    of("float16, sum", "x.sum().reshape(1)", "x.sum()", x=HALF),
    of("bfloat16 round trip", "y.bfloat16().float()", "y.bfloat16().float32()"),
    of("bfloat16 + float32", "y.bfloat16() + y"),
    of("an int64 array", "x + 0", x=LONG),
    of("int64 by array64", "x", "jt.array64(np.array([1, 2**40, -3, 4], 'int64'))", x=LONG),
    of("a float64 array", "x + 0", x=DOUBLE),
    of("float64 asked for", "x.double()", "x.float64()", x="np.float32([0.1, 0.2])"),
    of("float64 + float32", "x.double() + y", "x.float64() + y", x=normal(4)),
    of("float32 to int32", "y.int()"),
    of("float32 to int32, beyond", "(y * 1e12).int()", "(y * 1e12).int32()"),
    of("NaN to int32", "(y * float('nan')).int()", "(y * float('nan')).int32()"),
    of("float32 to bool", "y.bool()"),
    of("NaN to bool", "(y * float('nan')).bool()"),
    of("sum of booleans", "(x > 0).sum().reshape(1)", "(x > 0).sum()"),
    of("sum of int32", "x.sum().reshape(1)", "x.sum()"),
    of("mean of int32", "x.float().mean().reshape(1)", "x.mean()"),
    of("argmax", "y.argmax(0).reshape(1)", "y.argmax(0)[0]"),
    of("argsort", "torch.argsort(y)", "jt.argsort(y)[0]"),
    of("a 0-d array", "x", x="np.array(1.5, 'float32')"),
    of("sum to 0-d", "y.sum()"),
    of("index to 0-d", "y[1]"),
    of("exp of int32", "torch.exp(x)"),
    of("sqrt of int32", "torch.sqrt(x * x)"),
    of("where of int32 and float32", "torch.where(y > 0, x, y)"),
    of("maximum of int32 and float32", "torch.maximum(x, y)"),
    of("cat of int32 and float32", "torch.cat([x, y], dim=0)", "jt.concat([x, y], dim=0)"),
    of("int32 ** -1", "x.float() ** -1", "x ** -1", x="np.array([1, 2, 4], 'int32')"),
    of("int32 // 0", "x // 0", refused=True, x="np.array([1, 2], 'int32')"),
]
