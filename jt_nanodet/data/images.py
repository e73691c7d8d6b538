"""Reading picture files: one readable sentence for what cannot be read."""

from __future__ import annotations

import os

import cv2
import numpy as np

from jt_nanodet.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class UnreadableImage(UserError):
    """A picture that is missing, empty or damaged; ``path`` and ``reason`` say which and why."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"cannot read the image {path} ({reason}); replace or remove it")
        self.path, self.reason = path, reason

    def __reduce__(self):  # crosses a process boundary whole
        return UnreadableImage, (self.path, self.reason)


def read_image(path) -> np.ndarray:
    """BGR uint8 (h, w, 3), turned as its EXIF tag says, as ``cv2.imread`` does; raises UnreadableImage.

    A JPEG or PNG that stops in the middle counts as unreadable: OpenCV would fill the rest with grey.
    """
    path = str(path)
    try:
        with open(path, "rb") as f:
            data = f.read()
    except FileNotFoundError:
        raise UnreadableImage(path, "there is no such file") from None
    except OSError as error:
        raise UnreadableImage(path, error.strerror or "no access") from None
    if not data:
        raise UnreadableImage(path, "the file is empty")
    if _is_cut_short(data):
        raise UnreadableImage(path, "the file is cut short")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # for example more pixels than OpenCV accepts
        image = None
    if image is None:
        raise UnreadableImage(path, "not a picture, or damaged")
    return image


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker after the first scan, or a PNG its last chunk."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    for kind, at in _jpeg_segments(data):
        if kind == 0xDA:  # start of scan: from here on FF D9 can only be the end
            return data.find(b"\xff\xd9", at) < 0
    return True


def _jpeg_segments(data: bytes):
    """(marker, offset) of each segment up to the first scan; their lengths step over embedded thumbnails."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        yield data[at + 1], at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def image_size(path) -> tuple[int, int]:
    """(width, height) from the header of a JPEG, PNG or BMP, else by decoding; EXIF turns are not applied. "
    "UnreadableImage."""
    try:
        with open(path, "rb") as f:
            data = f.read()
    except OSError as error:
        raise UnreadableImage(str(path), error.strerror or "no access") from None
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"BM") and len(data) >= 26:
        return int.from_bytes(data[18:22], "little"), abs(int.from_bytes(data[22:26], "little", signed=True))
    if data.startswith(b"\xff\xd8"):
        for kind, at in _jpeg_segments(data):
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
                return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
    height, width = read_image(path).shape[:2]
    return width, height


def list_images(folder) -> list[str]:
    """Paths of the pictures directly in a folder, sorted by name; UserError when there is none."""
    folder = str(folder)
    try:
        names = sorted(n for n in os.listdir(folder) if n.lower().endswith(EXTENSIONS) and not n.startswith("."))
    except FileNotFoundError:
        raise UserError(f"{folder}: there is no such folder of images; give the path of one") from None
    except NotADirectoryError:
        raise UserError(f"{folder}: is a file where a folder of images belongs; give the path of its folder") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}); give a readable one") from None
    if not names:
        raise UserError(f"{folder}: holds no image; put files ending in {', '.join(EXTENSIONS)} there")
    return [os.path.join(folder, n) for n in names]
