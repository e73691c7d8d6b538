"""Released weights by name: fetched once, checked, converted.

Addresses: upstream's README (its model zoo on Google Drive, and its release v1.0.0-alpha-1 on GitHub) and, for the backbones, torchvision's model addresses,
of which upstream's ``shufflenetv2.py`` names the first two. Upstream publishes neither size nor checksum. torchvision's file names hold the first digits of the
SHA-256. Where no checksum is published, that of the first fetch is kept beside the file, and a later file must have it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jt_nanodet.checkpoint import replacing
from jt_nanodet.data.download import TIMEOUT, Asset, fetch, sha256_of
from jt_nanodet.errors import UserError, nearest

_RELEASE = "https://github.com/RangiLyu/nanodet/releases/download/v1.0.0-alpha-1"
_DRIVE = "https://drive.google.com/uc?export=download&id="
_BACKBONES = "https://download.pytorch.org/models"
#: Shown where a number is not published.
UNKNOWN = "not published"


@dataclass(frozen=True)
class Pretrained:
    """``config``: the configuration the weights must fit (a file of ``configs``); ``kind``: detector or backbone."""

    asset: Asset
    config: str
    kind: str


def _detector(name: str, drive: str) -> Pretrained:
    file = f"{name}_checkpoint.ckpt"
    return Pretrained(Asset(file, (f"{_RELEASE}/{file}", _DRIVE + drive)), f"{name}.yml", "detector")


def _backbone(file: str, config: str) -> Pretrained:
    return Pretrained(Asset(file, (f"{_BACKBONES}/{file}",), None, file.removesuffix(".pth").rpartition("-")[2]), config, "backbone")


TABLE = {
    "nanodet-plus-m_320": _detector("nanodet-plus-m_320", "1YvuEhahlgqxIhJu7bsL-fhaqubKcCWQc"),
    "nanodet-plus-m_416": _detector("nanodet-plus-m_416", "1gFjyrl7O8p5APr1ZOtWEm3tQNN35zi_W"),
    "nanodet-plus-m-1.5x_320": _detector("nanodet-plus-m-1.5x_320", "1qXR6t3TBMXlz6GlTU3fxiLA-eueYoGrW"),
    "nanodet-plus-m-1.5x_416": _detector("nanodet-plus-m-1.5x_416", "17sdAUydlEXCrHMsxlDPLj5cGb-8-mmY6"),
    "shufflenetv2_1.0x": _backbone("shufflenetv2_x1-5666bf0f80.pth", "nanodet-plus-m_320.yml"),
    "shufflenetv2_1.5x": _backbone("shufflenetv2_x1_5-3c479a10.pth", "nanodet-plus-m-1.5x_320.yml"),
}


def find(name: str) -> Pretrained:
    """The entry of that name. UserError with the nearest one, and all of them."""
    if name not in TABLE:
        close = nearest(name, TABLE)
        hint = f"did you mean {close}? " if close else ""
        raise UserError(f"there are no released weights {name!r}: {hint}the names are {', '.join(TABLE)}")
    return TABLE[name]


def cache_folder() -> Path:
    """``NANODET_CACHE``, else ``nanodet-parity`` in the user's cache folder."""
    base = os.environ.get("NANODET_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nanodet-parity"


def obtain(name: str, folder: Path, *, mirror: str | None = None, timeout: float = TIMEOUT, say: Callable[[str], None] = lambda text: None) -> tuple[Path, str]:
    """(the released file of ``name``, what is known about its checksum), fetched into ``folder`` unless it is there.

    UserError when it cannot be fetched (it says what to fetch by hand and where to put it) or is not the file of the first time.
    """
    entry = find(name)
    path = fetch(entry.asset, folder, mirror=mirror, timeout=timeout, say=say)
    digest = sha256_of(path)
    if entry.asset.sha256:
        return path, f"SHA-256 {digest}, which begins with the published {entry.asset.sha256}"
    record = folder / f"{entry.asset.name}.sha256"
    if record.is_file():
        known = record.read_text().strip()
        if known != digest:
            raise UserError(f"'{path}' has the SHA-256 {digest} and had {known} when it was first fetched; if the change is meant, remove '{record}'")
        return path, f"SHA-256 {digest}, as at the first fetch; {UNKNOWN} by upstream"
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(record) as file:
        file.write(f"{digest}\n".encode())
    return path, f"SHA-256 {digest}, noted now; {UNKNOWN} by upstream"


def listing() -> str:
    """The table as text."""
    lines = []
    for name, entry in TABLE.items():
        size = f"{entry.asset.size:,} bytes" if entry.asset.size else f"size {UNKNOWN}"
        lines.append(f"{name} ({entry.kind}, fits configs/{entry.config})\n  {entry.asset.name}: {size}, SHA-256 {entry.asset.sha256 or UNKNOWN}")
        lines += [f"  {url}" for url in entry.asset.urls]
    return "\n".join(lines)


def config_path(name: str) -> Path:
    """Where the configuration of ``name`` lies, in a checkout or an installation."""
    return Path(__file__).resolve().parents[1] / "configs" / find(name).config
