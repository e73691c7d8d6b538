"""Nothing of one machine is committed: no absolute paths of it, no addresses of package servers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Put together from pieces, so that this file does not find itself.
_FOLDERS = ("wo" "rk", "tm" "p/w", "ro" "ot", "ho" "me", "Us" "ers")
_HOSTS = ("py" "pi.org", "python" "hosted.org", "download.py" "torch.org", "deb.de" "bian.org", "npm" "js.org",
          "tsing" "hua.edu.cn", "ali" "yun.com")
PATTERNS = {
    "a path of one machine": re.compile(r"(?<![\w.~}\])<>-])/(?:" + "|".join(_FOLDERS) + r")/\w"),
    # /models/ of PyTorch's host holds released weights, not packages: weights_convert/pretrained.py names them as upstream does
    "an address of a package server": re.compile("(?:" + "|".join(re.escape(host) for host in _HOSTS) + ")(?!/models)"),
}
_TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".txt", ".cfg", ".h", ".cuh", ".cu", ".cc",
         ".sh", ".html", ".j2", ".css", ".svg", ".xml", ""}
#: Largest file that is read; results of a bigger size are not text that a person wrote.
_LIMIT = 4_000_000


def committed() -> list[Path]:
    """Files git knows, or would take, below the repository; every file outside a git checkout."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    if done.returncode != 0:
        skipped = {".venv", ".git", "__pycache__", "out", ".pytest_cache"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)]
    names = done.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def problems(name: str, text: str) -> list[str]:
    return [
        f"{name}:{number}: {what}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in PATTERNS.items()
        if pattern.search(line)
    ]


def test_committed_files_are_free_of_them() -> None:
    found, read = [], 0
    for path in committed():
        if path.suffix in _TEXT and path.stat().st_size < _LIMIT:
            found += problems(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace"))
            read += 1
    assert read > 20, "this test has to read something"
    assert found == []


@pytest.mark.parametrize("folder", _FOLDERS)
def test_a_planted_path_is_found(folder: str) -> None:
    assert len(problems("a.py", f'path = "/{folder}/someone/file"')) == 1
    assert len(problems("a.md", f"see /{folder}/someone/file")) == 1


@pytest.mark.parametrize("host", _HOSTS)
def test_a_planted_address_is_found(host: str) -> None:
    assert len(problems("a.md", f"pip install -i https://mirrors.{host}/simple x")) == 1


@pytest.mark.parametrize("text", ["../shared/golden", "a/home/b", "~/.cache/jittor", "$HOME/x", "/usr/local/cuda/bin", "/tmp/report"])
def test_ordinary_text_is_not(text: str) -> None:
    assert problems("a.md", text) == []


def test_no_large_or_binary_file_is_committed() -> None:
    large = [f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes" for path in committed() if path.stat().st_size > _LIMIT]
    assert large == []
