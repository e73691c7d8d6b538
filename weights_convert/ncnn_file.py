"""Read ncnn's two files: ``.param``, the graph as text, and ``.bin``, the weights one after the other.

Facts from ncnn (BSD-3; ``src/net.cpp``, ``src/paramdict.cpp``, ``src/modelbin.cpp``): the text begins with the number 7767517 and the numbers of
layers and blobs; a layer is ``type name inputs outputs input-names output-names key=value ...``, where a key of -23300 and below is the array of key
``-23300 - key``. A convolution's weights stand behind a 32-bit mark (0: float32; 0x01306B47: float16, padded to 4 bytes); its bias has no mark. The
parameters used here: 0 outputs, 1 and 11 kernel width and height, 3 stride, 5 bias present, 6 number of weights, 7 groups, 9 activation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jt_nanodet.checkpoint import read_file
from jt_nanodet.errors import UserError

MAGIC = "7767517"
#: Mark of the stored numbers -> (NumPy code, name). The other marks of ncnn are quantised numbers.
MARKS = {0x00000000: ("<f4", "float32"), 0x01306B47: ("<f2", "float16")}
WEIGHTED = ("Convolution", "ConvolutionDepthWise")
#: Layers that hold no numbers in the .bin, of those that NanoDet-Plus exports have.
PLAIN = ("Input", "Split", "Pooling", "Concat", "ShuffleChannel", "Slice", "Crop", "Interp", "BinaryOp", "Sigmoid", "Permute", "Reshape")
MAX_LAYERS = 100_000


@dataclass
class Layer:
    """One line of the graph. ``weight``: (out, in / groups, height, width) float32, ``stored`` its type in the file; ``bias``: (out,) or None."""

    type: str
    name: str
    inputs: list[str]
    outputs: list[str]
    params: dict[int, float | list[float]] = field(default_factory=dict)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    stored: str = ""

    def number(self, key: int, default: int = 0) -> int:
        """Parameter ``key`` as a whole number."""
        return int(self.params.get(key, default))

    @property
    def kernel(self) -> int:
        return self.number(1)

    @property
    def stride(self) -> int:
        return self.number(3, 1)

    @property
    def activated(self) -> bool:
        return self.number(9) != 0


def read_ncnn(param: Path) -> list[Layer]:
    """All layers of ``X.param`` with the numbers of ``X.bin`` beside it, in the file's order.

    Raises UserError for a missing or damaged file, a layer type or a storage that is not known here, and a .bin of another length than the graph needs.
    """
    layers = parse_graph(read_file(param), param)
    store = param.with_suffix(".bin")
    if not store.exists():
        raise UserError(f"'{param}' is only the graph and its weights '{store}' are not there; put the .bin beside it")
    fill(layers, read_file(store), store)
    return layers


def parse_graph(data: bytes, path: Path) -> list[Layer]:
    """The layers that the text lists, without numbers."""
    try:
        lines = data.decode("utf-8").splitlines()
        if lines[0].strip() != MAGIC:
            raise ValueError(f"it does not begin with {MAGIC}")
        count, blobs = (int(n) for n in lines[1].split())
        rows = [line.split() for line in lines[2:] if line.strip()]
        if count != len(rows) or count > MAX_LAYERS:
            raise ValueError(f"it announces {count} layers and lists {len(rows)}")
        layers = [_layer(row) for row in rows]
    except (ValueError, IndexError) as error:
        raise _damaged(path, error) from None
    made = [name for layer in layers for name in layer.outputs]
    if len(set(made)) != len(made) or len(made) != blobs:
        raise _damaged(path, f"it announces {blobs} blobs and makes {len(set(made))}")
    known: set[str] = set()
    for layer in layers:
        lacking = [name for name in layer.inputs if name not in known]
        if lacking:
            raise _damaged(path, f"layer {layer.name!r:.60} reads {lacking[0]!r:.60}, which no earlier layer makes")
        known.update(layer.outputs)
    return layers


def _layer(row: list[str]) -> Layer:
    kind, name, inputs, outputs = row[0], row[1], int(row[2]), int(row[3])
    if inputs < 0 or outputs < 0 or len(row) < 4 + inputs + outputs:
        raise ValueError(f"layer {name!r:.60} lacks blob names")
    if kind not in WEIGHTED + PLAIN:
        raise ValueError(f"layer {name!r:.60} has the type {kind!r:.40}, which an export of NanoDet-Plus does not have")
    params: dict[int, float | list[float]] = {}
    for entry in row[4 + inputs + outputs :]:
        key, value = entry.split("=", 1)
        number = int(key)
        if number <= -23300:
            params[-23300 - number] = [float(n) for n in value.split(",")[1:]]
        else:
            params[number] = float(value)
    return Layer(kind, name, row[4 : 4 + inputs], row[4 + inputs : 4 + inputs + outputs], params)


def fill(layers: list[Layer], data: bytes, path: Path) -> None:
    """Give every convolution its numbers; UserError where the bytes do not go up exactly."""
    at = 0

    def take(count: int, code: str, what: str) -> np.ndarray:
        nonlocal at
        size = count * np.dtype(code).itemsize
        if at + size > len(data):
            raise _damaged(path, f"{what} needs {size} bytes at {at} and the file has {len(data)}")
        values = np.frombuffer(data, code, count, at).astype(np.float32)
        at += (size + 3) // 4 * 4
        return values

    for layer in layers:
        if layer.type not in WEIGHTED:
            continue
        out, size = layer.number(0), layer.number(6)
        area = layer.kernel * layer.number(11, layer.kernel)
        groups = layer.number(7, 1) if layer.type == "ConvolutionDepthWise" else 1
        if min(out, area, groups, size) < 1 or size % (out * area) or out % groups or layer.number(8):
            raise _damaged(path.with_suffix(".param"), f"layer {layer.name!r:.60} has impossible or quantised sizes")
        mark = _mark(data, at, path, layer)
        at += 4
        code, layer.stored = MARKS[mark]
        shape = (out, size // (out * area), layer.number(11, layer.kernel), layer.kernel)
        layer.weight = take(size, code, f"the weight of {layer.name!r:.60}").reshape(shape)
        if layer.number(5):
            layer.bias = take(out, "<f4", f"the bias of {layer.name!r:.60}")
    if at != len(data):
        raise _damaged(path, f"{len(data)} bytes where the graph needs {at}")


def _mark(data: bytes, at: int, path: Path, layer: Layer) -> int:
    mark = int.from_bytes(data[at : at + 4], "little")
    if at + 4 > len(data):
        raise _damaged(path, f"it ends before layer {layer.name!r:.60}")
    if mark not in MARKS:
        raise UserError(f"'{path}' stores layer {layer.name!r:.60} quantised (mark {mark:#010x}); export it once more as float32 or float16")
    return mark


def _damaged(path: Path, reason: object) -> UserError:
    text = "".join(c if c.isprintable() else "?" for c in str(reason))[:160]
    return UserError(f"'{path}' is cut short, damaged or no ncnn file of NanoDet-Plus ({text}); copy both ncnn files again")
