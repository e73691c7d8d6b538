"""VOC's archives: where they are, what they must be, and unpacking them without letting a name out of its folder."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from jt_nanodet.data.download import Asset, Meter
from jt_nanodet.errors import UserError

_HOST = "http://host.robots.ox.ac.uk/pascal/VOC"
#: Sizes and SHA-256 as published by users of the official files (for example keras-cv and torchvision's prototype datasets).
ARCHIVES = {
    "2007-trainval": Asset("VOCtrainval_06-Nov-2007.tar", (f"{_HOST}/voc2007/VOCtrainval_06-Nov-2007.tar",), 460_032_000,
                           "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508"),
    "2007-test": Asset("VOCtest_06-Nov-2007.tar", (f"{_HOST}/voc2007/VOCtest_06-Nov-2007.tar",), 451_020_800,
                       "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892"),
    "2012-trainval": Asset("VOCtrainval_11-May-2012.tar", (f"{_HOST}/voc2012/VOCtrainval_11-May-2012.tar",), 1_999_639_040,
                           "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"),
}  # fmt: skip
#: What detection needs, below VOCdevkit/VOC20xx; the rest are segmentation masks.
NEEDED = ("Annotations", "ImageSets/Main", "JPEGImages")
#: Archives have 22 000 entries and 2 GB.
MAX_ENTRIES, MAX_BYTES = 500_000, 40 << 30


def unpack(archive: Path, folder: Path) -> int:
    """Unpack what detection needs below ``folder``; returns the number of files written. Files of the right size that are there already are kept.

    Refused with a UserError: names that lead out of the folder, links and devices, anything not below VOCdevkit, damaged or cut archives, a full disk.
    Files appear under their names when they are whole, so the same command goes on after any of these is mended.
    """
    mark = folder / "VOCdevkit" / f".{archive.name}.unpacked"
    stamp = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
    if mark.is_file() and mark.read_text() == stamp:
        return 0
    written = entries = taken = 0
    advice = f"fetch it again: remove '{archive}' and repeat the command"
    try:
        _check_end(archive)
        meter = Meter(f"unpacking {archive.name}", 0, archive.stat().st_size)
        with tarfile.open(archive, "r|*") as pack:
            for entry in pack:
                entries += 1
                taken += entry.size
                if entries > MAX_ENTRIES or taken > MAX_BYTES:
                    raise UserError(f"'{archive}' unpacks to more than any VOC archive; give the official one")
                target = place(entry, folder, archive)
                if target is None or entry.isdir() or (target.is_file() and target.stat().st_size == entry.size):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
                try:
                    with open(temporary, "wb") as file:
                        shutil.copyfileobj(pack.extractfile(entry), file, 1 << 20)
                    if temporary.stat().st_size != entry.size:
                        raise tarfile.ReadError("unexpected end of data")
                    os.replace(temporary, target)
                finally:
                    temporary.unlink(missing_ok=True)
                written += 1
                meter.show(entry.offset_data)
    except (tarfile.TarError, EOFError, zlib_error()) as error:
        raise UserError(f"'{archive}' is damaged or cut short ({error}); {written} files from it are kept; {advice}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk is full after {written} files of '{archive.name}'; make room in '{folder}' and repeat the command: it goes on from there") from None
        raise UserError(f"'{archive}' cannot be unpacked into '{folder}' ({error.strerror or error}); mend that and repeat the command") from None
    if not mark.parent.is_dir():
        raise UserError(f"'{archive}' holds no VOCdevkit; give an archive of VOC2007 or VOC2012")
    mark.write_text(stamp)
    return written


def place(entry: tarfile.TarInfo, folder: Path, archive: Path) -> Path | None:
    """Where an entry goes, or None for what detection does not need. UserError for an entry that has no business there."""
    name = PurePosixPath(entry.name)
    shown = "".join(c if c.isprintable() else "?" for c in entry.name)[:80]
    if name.is_absolute() or ".." in name.parts or "\\" in entry.name or "\0" in entry.name:
        raise UserError(f"'{archive}' holds the name '{shown}', which leads out of its folder; nothing of it is trusted: get the archive elsewhere")
    if not (entry.isfile() or entry.isdir()):
        raise UserError(f"'{archive}' holds '{shown}', which is a link or device; nothing of it is trusted: get the archive elsewhere")
    parts = name.parts
    if len(parts) < 3 or parts[0] != "VOCdevkit" or not parts[1].startswith("VOC20"):
        return None
    inner = "/".join(parts[2:])
    if not any(inner == needed or inner.startswith(needed + "/") for needed in NEEDED):
        return None
    target = folder.joinpath(*parts)
    if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(folder)):
        raise UserError(f"'{target.parent}' is a link that leads out of '{folder}'; remove the link and repeat the command")
    return target


def zlib_error() -> type[Exception]:
    """What a damaged compressed archive raises beside tarfile's own errors."""
    import zlib

    return zlib.error


def _check_end(archive: Path) -> None:
    """A plain .tar ends with 1024 zero bytes; tarfile itself would not miss them."""
    size = archive.stat().st_size
    with open(archive, "rb") as file:
        start = file.read(2)
        file.seek(max(0, size - 1024))
        end = file.read()
    packed = start in (b"\x1f\x8b", b"BZ", b"\xfd7")
    if not packed and (size < 1024 or size % 512 or any(end)):
        raise tarfile.ReadError("it does not end as a tar file ends")
