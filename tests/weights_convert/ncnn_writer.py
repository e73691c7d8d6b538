"""NanoDet-Plus as ncnn files, small: the graph that upstream's export has, with numbers drawn from a seed, for tests without real files."""

from __future__ import annotations

import numpy as np

STAGES = (2, 3, 2)


class Writer:
    """Lines of a ``.param`` and bytes of a ``.bin``; ``truth`` holds what each name must come back as."""

    def __init__(self, half: bool = True, seed: int = 0, classes: int = 3, bins: int = 4, crop: bool = False):
        self.lines, self.store, self.truth = [], b"", {}
        self.half, self.crop, self.rng = half, crop, np.random.default_rng(seed)
        self.classes, self.bins, self.blobs = classes, bins, 0

    def layer(self, kind, inputs, outputs=1, params=""):
        names = [f"b{self.blobs + n}" for n in range(outputs)]
        self.blobs += outputs
        self.lines.append(f"{kind} l{len(self.lines)} {len(inputs)} {outputs} {' '.join([*inputs, *names])} {params}".rstrip())
        return names if outputs > 1 else names[0]

    def conv(self, blob, name, norm, into, out, kernel=1, stride=1, depthwise=False, act=True):
        weight = self.rng.standard_normal((out, 1 if depthwise else into, kernel, kernel)).astype("f2" if self.half else "f4")
        bias = self.rng.standard_normal(out).astype("f4")
        raw = weight.tobytes()
        self.store += (0x01306B47 if self.half else 0).to_bytes(4, "little") + raw + b"\0" * (-len(raw) % 4) + bias.tobytes()
        self.truth |= {f"{name}.weight": weight.astype("f4"), f"{norm or name}.bias": bias}
        params = f"0={out} 1={kernel} 3={stride} 5=1 6={weight.size}" + (f" 7={out}" if depthwise else "") + (" 9=2 -23310=1,0.1" if act else "")
        return self.layer("ConvolutionDepthWise" if depthwise else "Convolution", [blob], 1, params)

    def split(self, blob, count=2):
        return self.layer("Split", [blob], count)

    def separable(self, blob, name, channels, stride=1):
        blob = self.conv(blob, f"{name}.depthwise", f"{name}.dwnorm", channels, channels, 5, stride, True)
        return self.conv(blob, f"{name}.pointwise", f"{name}.pwnorm", channels, channels)

    def halves(self, blob, channels):
        if not self.crop:
            return self.layer("Slice", [blob], 2, "-23300=2,-233,-233 1=0")
        a, b = self.split(blob)
        return [self.layer("Crop", [x], 1, f"-23309=1,{start} -23310=1,{start + channels} -23311=1,0") for x, start in ((a, 0), (b, channels))]

    def block(self, blob, name, into, out, stride):
        half = out // 2
        if stride == 2:
            left, right = self.split(blob)
            left = self.conv(left, f"{name}.branch1.0", f"{name}.branch1.1", into, into, 3, 2, True, False)
            left = self.conv(left, f"{name}.branch1.2", f"{name}.branch1.3", into, half)
        else:
            left, right = self.halves(blob, half)
        right = self.conv(right, f"{name}.branch2.0", f"{name}.branch2.1", into if stride == 2 else half, half)
        right = self.conv(right, f"{name}.branch2.3", f"{name}.branch2.4", half, half, 3, stride, True, False)
        right = self.conv(right, f"{name}.branch2.5", f"{name}.branch2.6", half, half)
        return self.layer("ShuffleChannel", [self.layer("Concat", [left, right])], 1, "0=2")

    def ghost(self, blob, name, channels):
        main, side = self.split(blob)
        for module, into, act in (("ghost1", 2 * channels, True), ("ghost2", channels, False)):
            a, b = self.split(self.conv(main, f"{name}.{module}.primary_conv.0", f"{name}.{module}.primary_conv.1", into, channels // 2, act=act))
            b = self.conv(b, f"{name}.{module}.cheap_operation.0", f"{name}.{module}.cheap_operation.1", channels // 2, channels // 2, 3, 1, True, act)
            main = self.layer("Concat", [a, b])
        side = self.conv(side, f"{name}.shortcut.0", f"{name}.shortcut.1", 2 * channels, 2 * channels, 5, 1, True, False)
        side = self.conv(side, f"{name}.shortcut.2", f"{name}.shortcut.3", 2 * channels, channels, act=False)
        return self.layer("BinaryOp", [main, side])

    def model(self):
        """The whole graph: three stages, three levels and an extra one."""
        blob = self.conv(self.layer("Input", []), "backbone.conv1.0", "backbone.conv1.1", 3, 4, 3, 2)
        blob = self.layer("Pooling", [blob], 1, "1=3 2=2")
        maps, into, c = [], 4, 6
        for s, repeats in enumerate(STAGES):
            for n in range(repeats):
                blob = self.block(blob, f"backbone.stage{s + 2}.{n}", into, 8 << s, 1 if n else 2)
                into = 8 << s
            keep, blob = self.split(blob) if s < 2 else (blob, None)
            maps.append((keep, into))
        low = [self.conv(b, f"fpn.reduce_layers.{n}.conv", f"fpn.reduce_layers.{n}.bn", i, c) for n, (b, i) in enumerate(maps)]
        top, to_up, to_extra = self.split(low[2], 3)
        inner1, again = self.split(self.ghost(self.layer("Concat", [self.upsampled(to_up), low[1]]), "fpn.top_down_blocks.0.blocks.0", c))
        out0, down0 = self.split(self.ghost(self.layer("Concat", [self.upsampled(again), low[0]]), "fpn.top_down_blocks.1.blocks.0", c))
        outs = [out0]
        for n, (down, other) in enumerate(((down0, inner1), (None, top))):
            down = down if n == 0 else next_down
            joined = self.layer("Concat", [self.separable(down, f"fpn.downsamples.{n}", c, 2), other])
            out, next_down = self.split(self.ghost(joined, f"fpn.bottom_up_blocks.{n}.blocks.0", c))
            outs.append(out)
        extra = [self.separable(b, f"fpn.extra_lvl_{w}_conv.0", c, 2) for b, w in ((to_extra, "in"), (next_down, "out"))]
        outs.append(self.layer("BinaryOp", extra))
        for n in (2, 0, 3, 1):  # an export may list the heads in any order
            blob = self.separable(self.separable(outs[n], f"head.cls_convs.{n}.0", c), f"head.cls_convs.{n}.1", c)
            blob = self.conv(blob, f"head.gfl_cls.{n}", None, c, self.classes + 4 * self.bins, act=False)
            self.layer("Slice", [blob], 2, f"-23300=2,{self.classes},-233")
        return self

    def upsampled(self, blob):
        return self.layer("Interp", [blob], 1, "0=2 1=2.0 2=2.0")

    def write(self, folder, name="tiny"):
        path = folder / f"{name}.param"
        path.write_text("\n".join(["7767517", f"{len(self.lines)} {self.blobs}", *self.lines]) + "\n")
        path.with_suffix(".bin").write_bytes(self.store)
        return path
