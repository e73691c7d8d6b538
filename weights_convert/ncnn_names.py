"""Which ncnn layer is which part of NanoDet-Plus: upstream's state-dict names, found by walking the graph from its ends to the picture.

ncnn keeps no names of the original, and several layers have equal shapes, so neither names nor shapes decide. Backwards every blob has exactly one
maker, and the inputs of a Concat or an addition stand in the order in which upstream's code gives them. Every step checks what it meets; every
convolution must be named, once. Upstream (RangiLyu/nanodet): ``shufflenetv2.py``, ``ghost_pan.py``, ``nanodet_plus_head.py``.
"""

from __future__ import annotations

from weights_convert.ncnn_file import WEIGHTED, Layer

#: Layers that hand a blob on as it is.
_ALIASES = ("Split",)


class Mismatch(ValueError):
    """The graph is not NanoDet-Plus; the text says where."""


class Graph:
    """Makers of blobs, and the names given so far."""

    def __init__(self, layers: list[Layer]):
        self.layers = layers
        self.maker = {name: layer for layer in layers for name in layer.outputs}
        self.names: dict[str, tuple[str, str | None]] = {}  # layer -> (convolution's name, batch norm's name)

    def origin(self, blob: str) -> str:
        """The blob behind copies."""
        while self.maker[blob].type in _ALIASES:
            blob = self.maker[blob].inputs[0]
        return blob

    def made_by(self, blob: str, kind: str, where: str) -> Layer:
        layer = self.maker[self.origin(blob)]
        if layer.type != kind:
            raise Mismatch(f"{where}: a {kind} was expected and there is the {layer.type} {layer.name!r:.60}")
        return layer

    def conv(self, blob: str, name: str, norm: str | None, depthwise: bool, stride: int = 1, activated: bool | None = True) -> str:
        """Name the convolution that makes ``blob`` and return its input's origin. ``activated`` None: either."""
        layer = self.made_by(blob, WEIGHTED[depthwise], name)
        want = {"stride": (layer.stride, stride), "activation": (layer.activated, layer.activated if activated is None else activated)}
        wrong = next((f"{what} {has} in place of {must}" for what, (has, must) in want.items() if has != must), None)
        if wrong or layer.bias is None or (depthwise and layer.weight.shape[1] != 1):
            raise Mismatch(f"{name}: the layer {layer.name!r:.60} has {wrong or 'no bias or is not depthwise'}")
        if layer.name in self.names:
            raise Mismatch(f"the layer {layer.name!r:.60} is {self.names[layer.name][0]} and {name}")
        self.names[layer.name] = (name, norm)
        return self.origin(layer.inputs[0])

    def depthwise_module(self, blob: str, name: str, stride: int = 1) -> str:
        """Upstream's DepthwiseConvModule; returns its input."""
        middle = self.conv(blob, f"{name}.pointwise", f"{name}.pwnorm", False)
        return self.conv(middle, f"{name}.depthwise", f"{name}.dwnorm", True, stride)

    def pair(self, layer: Layer, where: str) -> list[str]:
        if len(layer.inputs) != 2:
            raise Mismatch(f"{where}: {layer.name!r:.60} has {len(layer.inputs)} inputs in place of 2")
        return [self.origin(blob) for blob in layer.inputs]

    def same(self, a: str, b: str, where: str) -> str:
        if a != b:
            raise Mismatch(f"{where}: the branches begin at {a!r:.60} and {b!r:.60}")
        return a


def name_layers(layers: list[Layer]) -> tuple[dict[str, tuple[str, str | None]], int]:
    """({layer's name: (convolution, its batch norm or None)}, number of classes). Raises Mismatch where the graph is another model."""
    graph = Graph(layers)
    levels, classes = _heads(graph)
    _backbone(graph, _neck(graph, levels))
    left = [layer.name for layer in layers if layer.type in WEIGHTED and layer.name not in graph.names]
    if left:
        raise Mismatch(f"{len(left)} convolutions have no place in NanoDet-Plus (first {left[0]!r:.60})")
    return graph.names, classes


def _heads(graph: Graph) -> tuple[list[str], int]:
    """Name the heads; returns the neck's outputs, finest first, and the number of classes."""
    slices = [(layer, graph.maker[graph.origin(layer.inputs[0])]) for layer in graph.layers if layer.type == "Slice"]
    ends = [layer for layer, before in slices if before.type == "Convolution" and not before.activated]
    if not ends:
        raise Mismatch("no head: no convolution ends in a slice into classes and distances")
    classes = {int(list(layer.params[0])[0]) for layer in ends if isinstance(layer.params.get(0), list)}
    if len(classes) != 1:
        raise Mismatch(f"the heads have {sorted(classes)} classes")
    ordered = sorted(ends, key=lambda layer: _scale(graph, layer.inputs[0]))
    levels = []
    for i, layer in enumerate(ordered):
        blob = graph.conv(layer.inputs[0], f"head.gfl_cls.{i}", None, False, activated=False)
        depth, probe = 0, blob
        while graph.maker[probe].type == "Convolution":  # the neck's outputs are sums
            probe, depth = _input(graph, _input(graph, probe)), depth + 1
        for k in reversed(range(depth)):
            blob = graph.depthwise_module(blob, f"head.cls_convs.{i}.{k}")
        levels.append(blob)
    return levels, classes.pop()


def _input(graph: Graph, blob: str) -> str:
    layer = graph.maker[blob]
    if not layer.inputs:
        raise Mismatch("a path ends at the picture where a sum was expected")
    return graph.origin(layer.inputs[0])


def _scale(graph: Graph, blob: str) -> float:
    """Stride of a blob against the picture, multiplied up along its first inputs."""
    scale, blob = 1.0, graph.origin(blob)
    while graph.maker[blob].inputs:
        layer = graph.maker[blob]
        scale *= layer.number(2, 1) if layer.type == "Pooling" else layer.stride if layer.type in WEIGHTED else 1
        scale /= float(layer.params.get(1, 1)) if layer.type == "Interp" else 1
        blob = graph.origin(layer.inputs[0])
    return scale


def _neck(graph: Graph, levels: list[str]) -> list[str]:
    """Name GhostPAN; returns the backbone's maps, finest first."""
    chain, sources = [], []
    for blob in levels:  # ghost blocks first, then the sums of the extra levels
        source = _ghost_source(graph, blob)
        if source is None:
            break
        chain.append(blob)
        sources.append(graph.pair(graph.made_by(source, "Concat", "fpn"), "fpn"))
    steps = len(chain) - 1
    if steps < 1 or graph.maker[sources[0][0]].type != "Interp":
        raise Mismatch("fpn: its outputs are not ghost blocks that begin with an upsampled map")
    inner = [chain[0]]
    for i in range(steps):
        name = f"fpn.bottom_up_blocks.{i}.blocks.0"
        _ghost_block(graph, chain[i + 1], name)
        below = graph.depthwise_module(sources[i + 1][0], f"fpn.downsamples.{i}", 2)
        graph.same(below, chain[i], f"fpn.downsamples.{i}")
        inner.append(sources[i + 1][1])
    maps: list[str] = []
    for i in range(steps):  # finest first, which is upstream's last block
        name = f"fpn.top_down_blocks.{steps - 1 - i}.blocks.0"
        coarse, low = graph.pair(graph.made_by(_ghost_block(graph, inner[i], name), "Concat", name), name)
        up = graph.made_by(coarse, "Interp", name)
        graph.same(graph.origin(up.inputs[0]), inner[i + 1], name)
        maps.append(graph.conv(low, f"fpn.reduce_layers.{i}.conv", f"fpn.reduce_layers.{i}.bn", False))
    maps.append(graph.conv(inner[-1], f"fpn.reduce_layers.{steps}.conv", f"fpn.reduce_layers.{steps}.bn", False))
    last = chain[-1]
    for i, blob in enumerate(levels[len(chain) :]):
        first, second = graph.pair(graph.made_by(blob, "BinaryOp", "fpn.extra_lvl"), "fpn.extra_lvl")
        graph.same(graph.depthwise_module(first, f"fpn.extra_lvl_in_conv.{i}", 2), inner[-1], f"fpn.extra_lvl_in_conv.{i}")
        graph.same(graph.depthwise_module(second, f"fpn.extra_lvl_out_conv.{i}", 2), last, f"fpn.extra_lvl_out_conv.{i}")
        last = blob
    return maps


def _ghost_source(graph: Graph, blob: str) -> str | None:
    """The map that a ghost block starts from, or None where ``blob`` is the sum of an extra level."""
    parts = graph.pair(graph.made_by(blob, "BinaryOp", "fpn"), "fpn")
    if graph.maker[parts[0]].type != "Concat":
        return None
    return _input(graph, _input(graph, parts[1]))


def _ghost_block(graph: Graph, blob: str, name: str) -> str:
    """Name one ghost bottleneck whose output is ``blob``; returns its input."""
    main, shortcut = graph.pair(graph.made_by(blob, "BinaryOp", name), name)
    for module, activated in (("ghost2", False), ("ghost1", True)):
        primary, cheap = graph.pair(graph.made_by(main, "Concat", f"{name}.{module}"), f"{name}.{module}")
        start = graph.conv(cheap, f"{name}.{module}.cheap_operation.0", f"{name}.{module}.cheap_operation.1", True, activated=activated)
        graph.same(start, primary, f"{name}.{module}")
        main = graph.conv(primary, f"{name}.{module}.primary_conv.0", f"{name}.{module}.primary_conv.1", False, activated=activated)
    middle = graph.conv(shortcut, f"{name}.shortcut.2", f"{name}.shortcut.3", False, activated=False)
    start = graph.conv(middle, f"{name}.shortcut.0", f"{name}.shortcut.1", True, activated=False)
    return graph.same(start, main, name)


def _backbone(graph: Graph, maps: list[str]) -> None:
    """Name ShuffleNetV2 from its last stage to the picture; each stage must begin at the map of the stage before."""
    blob = maps[-1]
    for i in reversed(range(len(maps))):
        graph.same(blob, maps[i], f"backbone.stage{i + 2}")
        blob = _stage(graph, blob, f"backbone.stage{i + 2}")
    pool = graph.made_by(blob, "Pooling", "backbone.maxpool")
    end = graph.conv(pool.inputs[0], "backbone.conv1.0", "backbone.conv1.1", False, 2)
    graph.made_by(end, "Input", "backbone")


def _stage(graph: Graph, blob: str, name: str) -> str:
    """Name a stage's blocks; returns the stage's input."""
    blocks = []
    while True:
        left, right = graph.pair(graph.made_by(graph.made_by(blob, "ShuffleChannel", name).inputs[0], "Concat", name), name)
        blocks.append((left, right))
        if graph.maker[left].type == "Convolution":  # both branches halve the resolution: the stage's first block
            break
        blob = graph.origin(graph.maker[left].inputs[0])
    for number, (left, right) in enumerate(reversed(blocks)):
        block, stride = f"{name}.{number}", 1 if number else 2
        end = graph.conv(right, f"{block}.branch2.5", f"{block}.branch2.6", False)
        end = graph.conv(end, f"{block}.branch2.3", f"{block}.branch2.4", True, stride, activated=False)
        end = graph.conv(end, f"{block}.branch2.0", f"{block}.branch2.1", False)
        if number == 0:
            other = graph.conv(left, f"{block}.branch1.2", f"{block}.branch1.3", False)
            start = graph.same(graph.conv(other, f"{block}.branch1.0", f"{block}.branch1.1", True, 2, activated=False), end, block)
        elif (_half(graph, left, block), _half(graph, end, block)) != (0, 1) or _input(graph, left) != _input(graph, end):
            raise Mismatch(f"{block}: its branches are not the two halves of one map")
    return start


def _half(graph: Graph, blob: str, where: str) -> int:
    """0 or 1: which half of the channels ``blob`` is; exports write it as Slice or as Crop from a start."""
    layer = graph.maker[blob]
    if layer.type == "Slice":
        return layer.outputs.index(blob)
    if layer.type == "Crop" and isinstance(layer.params.get(9), list):
        return int(layer.params[9][0] > 0)
    raise Mismatch(f"{where}: {layer.name!r:.60} does not halve the channels")
