"""Interpolation, padding, patches, sampling."""

from __future__ import annotations

from alignment.atlas.entry import LAYER, Entry, normal, uniform


def on(name: str, torch: str, jittor: str = "", shape: tuple[int, ...] = (2, 3, 5, 4), edges: tuple[str, ...] = (), **more) -> Entry:
    return Entry(name, torch, jittor, {"x": normal(*shape)}, edges=edges, **more)


def scaled(mode: str, what: str, options: str, **more) -> Entry:
    text = f"F.interpolate(x, {what}, mode='{mode}'{options and ', '}{options})"
    return on(f"interpolate {mode}, {what}{options and ', '}{options}", text, **more)


def sampled(mode: str, padding: str, align: bool, edges: tuple[str, ...] = ()) -> Entry:
    text = f"F.grid_sample(x, g, mode='{mode}', padding_mode='{padding}', align_corners={align})"
    return Entry(f"grid_sample {mode}, {padding}, align_corners={align}", text, inputs={"x": normal(2, 3, 5, 4), "g": uniform(-1.3, 1.3, 2, 4, 5, 2)}, edges=edges)


ON, OFF = "align_corners=True", "align_corners=False"
ENTRIES = [
    scaled("nearest", "scale_factor=2", "", edges=LAYER),
    scaled("nearest", "scale_factor=0.5", ""),
    scaled("nearest", "size=(7, 9)", ""),
    scaled("nearest", "size=(3, 3)", ""),
    scaled("nearest-exact", "size=(7, 9)", ""),
    scaled("bilinear", "scale_factor=2", OFF, edges=LAYER),
    on("nn.Upsample, bilinear", "nn.Upsample(scale_factor=2, mode='bilinear')(x)", edges=()),
    scaled("bilinear", "scale_factor=2", ON),
    scaled("bilinear", "scale_factor=0.5", OFF),
    scaled("bilinear", "scale_factor=1.7", OFF),
    scaled("bilinear", "size=(7, 9)", OFF),
    scaled("bilinear", "size=(7, 9)", ON),
    scaled("bilinear", "size=(3, 3)", OFF),
    scaled("bilinear", "size=(1, 1)", ON),
    scaled("bilinear", "size=(3, 3)", OFF + ", antialias=True"),
    scaled("bicubic", "scale_factor=2", OFF),
    scaled("bicubic", "size=(7, 9)", ON),
    scaled("bicubic", "size=(3, 3)", OFF),
    scaled("area", "size=(3, 2)", ""),
    scaled("linear", "scale_factor=2", OFF, shape=(2, 3, 5)),
    scaled("trilinear", "scale_factor=2", OFF, shape=(1, 2, 3, 3, 2)),
    sampled("bilinear", "zeros", False, ("nan", "inf")),
    sampled("bilinear", "zeros", True),
    sampled("bilinear", "border", False),
    sampled("bilinear", "reflection", False),
    sampled("nearest", "zeros", False),
    sampled("bicubic", "zeros", False),
    Entry("affine_grid", "F.affine_grid(x, (2, 3, 4, 5), align_corners=False)", inputs={"x": normal(2, 2, 3)}),
    on("pixel_shuffle", "F.pixel_shuffle(x, 2)", "nn.PixelShuffle(2)(x)", shape=(2, 8, 3, 2)),
    on("pixel_unshuffle", "F.pixel_unshuffle(x, 2)", shape=(2, 2, 4, 6)),
    on("pad, constant", "F.pad(x, (1, 2, 0, 1), value=3.0)", edges=LAYER),
    on("pad, negative", "F.pad(x, (-1, 1))"),
    on("pad, reflect", "F.pad(x, (1, 2, 2, 1), mode='reflect')"),
    on("pad, replicate", "F.pad(x, (1, 2, 2, 1), mode='replicate')"),
    on("pad, circular", "F.pad(x, (1, 2, 2, 1), mode='circular')"),
    on("nn.ZeroPad2d", "nn.ZeroPad2d((1, 2, 0, 1))(x)"),
    on("nn.ReflectionPad2d", "nn.ReflectionPad2d(2)(x)"),
    on("unfold", "F.unfold(x, 3, padding=1, stride=2)"),
    on("unfold, dilation 2", "F.unfold(x, 2, dilation=2)"),
    on("fold", "F.fold(x, (5, 4), 2)", shape=(2, 12, 12)),
]
