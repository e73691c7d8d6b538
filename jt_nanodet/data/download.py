"""Fetching large files: resumed where a connection broke, checked by size and SHA-256, kept where they are whole.

While a file is on its way it lies beside its place as ``NAME.part``, with what the server said about it in ``NAME.part.json``. Nothing that has arrived
is thrown away unless the server's file has changed or the bytes prove wrong. Addresses are ``http``, ``https`` or ``file``, or plain paths.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jt_nanodet.checkpoint import replacing
from jt_nanodet.errors import UserError

BLOCK = 1 << 20
#: Seconds without a byte after which a connection counts as dead, and tries in a row that may bring nothing.
TIMEOUT, TRIES = 30.0, 4
_AGENT = {"User-Agent": "nanodet-parity"}


@dataclass(frozen=True)
class Asset:
    """A file to fetch. ``urls``: tried in order. ``size`` (bytes) and ``sha256`` (hexadecimal, or its first digits) are None where not published."""

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None

    def by_hand(self, folder: Path) -> str:
        """What to type where this machine has no way to the addresses."""
        return f"fetch {self.urls[0]} with a browser or another machine and put it at '{folder / self.name}', then repeat the command"


class Changed(Exception):
    """The server's file is not the one whose beginning lies here."""


def fetch(asset: Asset, folder: Path, *, mirror: str | None = None, timeout: float = TIMEOUT, tries: int = TRIES, say: Callable[[str], None] = lambda text: None) -> Path:
    """The whole, checked file at ``folder / asset.name``, from there if it is there already.

    ``mirror``: address of a folder that holds the files by name, used instead of ``urls``. A ``file://`` address or a path is used where it lies and
    not copied. UserError when no address works (what has arrived stays, and the sentence says what to type), and when the bytes are not the asset's.
    """
    target = folder / asset.name
    if target.exists():
        check(target, asset, say)
        return target
    problems = []
    for url in [f"{mirror.rstrip('/')}/{asset.name}"] if mirror else asset.urls:
        local = local_path(url)
        if local is not None:
            if not local.is_file():
                problems.append(f"{url}: there is no such file")
                continue
            check(local, asset, say)
            return local
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder} ({error.strerror}); choose another") from None
        problem = _from_server(url, target, asset, timeout, tries, say)
        if problem is None:
            return target
        problems.append(f"{url}: {problem}")
    part = _part(target)
    kept = f"; {part.stat().st_size:,} bytes are kept and the same command goes on from there" if part.exists() else ""
    raise UserError(f"{asset.name} could not be fetched ({'; '.join(problems)}){kept}; or {asset.by_hand(folder)}")


def local_path(url: str) -> Path | None:
    """The path that a ``file://`` address or a plain path names, or None for an address on the network. UserError for another scheme."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    if parts.scheme and "://" in url:
        raise UserError(f"{url} is no address for fetching files; give http://, https://, file:// or a path")
    return Path(url)


def check(path: Path, asset: Asset, say: Callable[[str], None] = lambda text: None) -> str:
    """Hold a file against the asset's size and checksum; returns its SHA-256. UserError where they differ."""
    size = path.stat().st_size
    if asset.size is not None and size != asset.size:
        raise UserError(f"'{path}' has {size:,} bytes and {asset.name} has {asset.size:,}: it is cut short or another file; remove it and repeat the command")
    say(f"checking {path.name}")
    digest = sha256_of(path)
    if asset.sha256 and not digest.startswith(asset.sha256):
        raise UserError(f"'{path}' has the SHA-256 {digest} and not {asset.sha256}: it is damaged or another file; remove it and repeat the command")
    return digest


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _from_server(url: str, target: Path, asset: Asset, timeout: float, tries: int, say: Callable[[str], None]) -> str | None:
    """Fetch over the network; None when the file is whole and in place, else the reason why this address was given up."""
    part, empty, reason = _part(target), 0, ""
    while empty < tries:
        before = part.stat().st_size if part.exists() else 0
        try:
            whole = _stream(url, part, asset, timeout, say)
        except Changed as error:
            say(f"{asset.name}: {error}; starting anew")
            _forget(part)
            empty, reason = empty + 1, str(error)
            continue
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429) and error.code < 500:
                return f"the server says {error.code} {error.reason}"
            whole, reason = False, f"the server says {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            cause = getattr(error, "reason", error)
            whole, reason = False, "no answer in time" if isinstance(cause, TimeoutError) else str(cause) or type(cause).__name__
        except OSError as error:
            raise _disk(error, part) from None
        else:
            reason = "the connection ended early"
        if whole:
            try:
                check(part, asset, say)
            except UserError as error:
                damaged = part.with_suffix(".damaged")
                os.replace(part, damaged)
                _forget(part)
                return f"what came is not the file ({str(error).split(': ')[0].replace(str(part), asset.name)}; kept as '{damaged.name}')"
            os.replace(part, target)
            _forget(part)
            return None
        arrived = (part.stat().st_size if part.exists() else 0) - before
        empty = 0 if arrived > 0 else empty + 1  # a connection that brings something is worth another try
        if empty < tries:
            wait = min(2**empty, 30) * min(1.0, timeout / TIMEOUT)
            say(f"{asset.name}: {reason} after {before + max(arrived, 0):,} bytes; going on from there in {wait:.0f} s")
            time.sleep(wait)
    return f"{reason}, {tries} times without a new byte"


def _stream(url: str, part: Path, asset: Asset, timeout: float, say: Callable[[str], None]) -> bool:
    """Append what the server sends to ``part``; True when the file is whole. Raises Changed when what lies there is of another file."""
    note, have = _note(part), part.stat().st_size if part.exists() else 0
    if note.get("url") != url:  # another address may hold another file; without its mark the two cannot be joined
        have = 0 if asset.size is None and asset.sha256 is None else have
    if asset.size is not None and have >= asset.size:
        if have > asset.size:
            raise Changed(f"{have:,} bytes lie here of {asset.size:,}")
        return True
    request = urllib.request.Request(url, headers=dict(_AGENT))
    if have:
        request.add_header("Range", f"bytes={have}-")
        if note.get("url") == url and note.get("mark"):
            request.add_header("If-Range", note["mark"])
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if whole == str(have) or note.get("total") == have:
                return True  # the server has no more, whatever it announced before
            raise Changed(f"{have:,} bytes lie here and the server's file has {whole or 'fewer'}") from None
        raise
    with answer:
        if (answer.headers.get("Content-Type") or "").startswith("text/html"):
            raise http.client.HTTPException("the server answers with a web page and not with the file")
        start, total = _range(answer, have)
        if asset.size is not None and total is not None and total != asset.size:
            say(f"{asset.name}: the server announces {total:,} bytes where the file has {asset.size:,}")
            total = asset.size
        total = asset.size if total is None else total
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if mark and mark.startswith("W/"):
            mark = None  # a weak mark may stand for other bytes
        skip = 0
        if not start and have and mark and note.get("url") == url and note.get("mark") == mark:
            start = skip = have  # the same file from its beginning: the server knows no ranges, so pass over what lies here
        mode, have = ("ab", have) if start else ("wb", 0)
        _room(part, (total or 0) - have)
        with replacing(part.with_name(part.name + ".json")) as file:
            file.write(json.dumps({"url": url, "mark": mark, "total": total}).encode())
        while skip and (block := answer.read1(min(BLOCK, skip))):
            skip -= len(block)
        meter = Meter(asset.name, have, total)
        with open(part, mode) as file:
            while True:
                room = BLOCK if total is None else min(BLOCK, total - have)
                block = answer.read1(room) if room else b""
                if not block:
                    break
                file.write(block)
                have += len(block)
                meter.show(have)
        meter.close(have)
    return have == total if total is not None else True


def _range(answer, have: int) -> tuple[int, int | None]:
    """(where the body starts, how long the whole file is) of an answer to a request that starts at ``have``."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:
        return 0, int(length) if length and length.isdigit() else None
    said = answer.headers.get("Content-Range") or ""
    unit, _, rest = said.partition(" ")
    span, _, total = rest.partition("/")
    start = span.split("-")[0]
    if unit != "bytes" or start != str(have):
        raise Changed(f"the server sends the range {said!r:.60} in place of the bytes from {have:,}")
    return have, int(total) if total.isdigit() else None


def _room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(
            f"'{part.parent}' has {free:,} bytes free and {needed:,} are still to come; make room or choose another folder: what has arrived stays"
        )


def _disk(error: OSError, part: Path) -> UserError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"'{part}' cannot be written ({error.strerror or error})"
    return UserError(f"{what}; make room or choose another folder, then repeat the command: what has arrived stays in '{part.parent}'")


def _note(part: Path) -> dict:
    try:
        value = json.loads(part.with_name(part.name + ".json").read_text())
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}


def _forget(part: Path) -> None:
    for path in (part, part.with_name(part.name + ".json")):
        path.unlink(missing_ok=True)


class Meter:
    """Progress of one file: a line on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, name: str, have: int, total: int | None):
        self.name, self.first, self.total = name, have, total
        self.live = sys.stderr.isatty()
        self.began = time.monotonic()
        self.shown = self.began - (10 if self.live else 0)

    def show(self, have: int) -> None:
        """Say how much is there, at most every so often."""
        now = time.monotonic()
        if now - self.shown < (0.2 if self.live else 10):
            return
        self.shown = now
        rate = (have - self.first) / max(now - self.began, 1e-9)
        of = f" of {self.total / 1e6:.1f}" if self.total else ""
        left = f", {(self.total - have) / max(rate, 1):.0f} s left" if self.total else ""
        print(f"{self.name}: {have / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB/s{left}", end="\r\033[K" if self.live else "\n", file=sys.stderr, flush=True)

    def close(self, have: int) -> None:
        if self.live:
            print(f"\r\033[K{self.name}: {have / 1e6:.1f} MB", file=sys.stderr, flush=True)
