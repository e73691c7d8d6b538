"""One module of the judging core under mutation: a copy of the tree, mutmut's run in it, and what it found."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
#: Each module and the tests below tests/ that judge it: fast ones, without a framework, because they run for every mutant.
CORE: dict[str, tuple[str, ...]] = {
    "compare": ("alignment/test_compare_rows.py", "alignment/test_compare.py"),
    "measures": ("alignment/test_measures.py", "alignment/test_compare_rows.py"),
    "noise": ("alignment/test_noise_rows.py", "alignment/test_noise.py"),
    "result": ("alignment/test_result_rows.py", "alignment/test_result.py"),
    "signatures": ("alignment/test_signatures.py",),
    "flips": ("alignment/test_flips.py",),
    "detections": ("alignment/test_detections_rows.py", "alignment/test_detections.py"),
    "locate": ("alignment/test_locate_rows.py", "alignment/test_locate.py"),
    "causes": ("alignment/test_causes.py",),
    "pairing": ("pairs/test_pairing_rows.py",),
    "bundle": ("alignment/test_bundle_rows.py", "alignment/test_bundle.py"),
}
#: What a copy needs so that these tests can be imported.
COPIED = ("alignment", "configs", "jt_nanodet", "reports", "torch_ref", "weights_convert", "tests", "pyproject.toml")
SETTINGS = """
[tool.mutmut]
source_paths = ["alignment"]
only_mutate = ["alignment/{module}.py"]
also_copy = {copied}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = {words}
use_git_change_detection = false
"""
#: mutmut's exit codes; anything else means that the run itself went wrong (see its README).
KILLED, SURVIVED, TIMEOUT = {1, 3}, {0, 5, 33}, {24, -24, 36, 152, 255}
#: A mutant is written with so many characters of its line on either side of what changed.
AROUND = 30


#: Hundreds of faultless pairs: they hold the rate of false alarms, take seconds, and are not there to kill mutants.
LEFT_OUT = "not no_fault_no_alarm and not hundreds_of_images"
WORDS = ["-m", "not jittor and not torch and not slow", "-k", LEFT_OUT, "-p", "no:cacheprovider"]


def tests_of(module: str) -> list[str]:
    return [f"tests/{name}" for name in CORE[module]]


def fingerprint(module: str, mutmut: str) -> str:
    """Of the module, the tests that judge it, and mutmut's version: a run under the same one need not be made again."""
    digest = hashlib.sha256(mutmut.encode())
    digest.update(plain_properties((ROOT / "alignment" / f"{module}.py").read_text(encoding="utf-8")).encode())
    for name in tests_of(module):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def copy_tree(module: str, folder: Path) -> None:
    """The parts of the repository that the tests import, with mutmut's settings for this module."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "out"))
        else:
            shutil.copy(ROOT / name, folder / name)
    source = folder / "alignment" / f"{module}.py"
    source.write_text(plain_properties(source.read_text(encoding="utf-8")), encoding="utf-8")
    copied = json.dumps([name for name in COPIED if name not in ("alignment", "tests", "pyproject.toml")])
    with open(folder / "pyproject.toml", "a", encoding="utf-8") as stream:
        stream.write(SETTINGS.format(module=module, copied=copied, tests=json.dumps(tests_of(module)), words=json.dumps(WORDS)))


def plain_properties(source: str) -> str:
    """The same module with every ``@property`` made after its function, in a line of its own: mutmut leaves decorated functions as they are."""
    lines = source.splitlines()
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and [ast.unparse(one) for one in node.decorator_list] == ["property"]]
    for node in sorted(found, key=lambda node: -node.lineno):
        lines.insert(node.end_lineno, f"{' ' * node.col_offset}{node.name} = property({node.name})")
        del lines[node.decorator_list[0].lineno - 1]
    return "\n".join(lines) + "\n"


CHOSEN = """
import sys, pytest
class Names:
    def pytest_collection_finish(self, session):
        self.found = [item.nodeid for item in session.items]
names, words, tests = Names(), {words}, {tests}
code = pytest.main(["-q", "-x", "--rootdir=.", *words, *tests], plugins=[names])
sys.exit(code or pytest.main(["-q", "-x", "--rootdir=.", *words, *names.found]))
"""


def check_tests(module: str, folder: Path) -> None:
    """The tests must pass on the unaltered copy, and once more in the same process when they are chosen one by one, as mutmut chooses them for each
    mutant: where pytest does not know a test by its name, every mutant would seem to be killed. UserError else."""
    words = [sys.executable, "-c", CHOSEN.format(words=WORDS, tests=tests_of(module))]
    done = subprocess.run(words, cwd=folder, env=_environment(), capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-12:]
        raise UserError(f"{module}: without any change its tests do not pass, or cannot be chosen one by one ({' '.join(said)}); mend {', '.join(tests_of(module))}")


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTEST_ADDOPTS", "MUTANT_UNDER_TEST")}


def mutate(module: str, folder: Path, children: int, progress: Callable[[str], None]) -> None:
    """Run mutmut in the copy, and once more for the mutants that took too long: on a busy machine the clock alone may have stopped them. Its output is
    the copy's name with ``.log``. UserError when it gives up."""
    _run(folder, children, progress, [])
    slow = [key for key, code in exit_codes(module, folder).items() if code in TIMEOUT]
    if slow:
        progress(f"{len(slow)} timeouts once more")
        _run(folder, children, progress, slow)


def _run(folder: Path, children: int, progress: Callable[[str], None], names: list[str]) -> None:
    log = folder.with_suffix(".log")
    # by its entry point: run with -m it imports itself twice, and says so
    words = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", "run", "--max-children", str(children), *names]
    with open(log, "w", encoding="utf-8") as stream:
        child = subprocess.Popen(words, cwd=folder, env=_environment(), stdout=stream, stderr=subprocess.STDOUT)
        try:
            last = time.monotonic()
            while child.poll() is None:
                time.sleep(0.5)
                if time.monotonic() - last > 10:
                    last = time.monotonic()
                    progress((re.findall(r"\d+/\d+", _tail(log)) or ["preparing"])[-1])
        finally:
            child.terminate()
            child.wait()
    if child.returncode:
        raise UserError(f"mutmut ended with exit code {child.returncode}; read {log} and run the command again")


def _tail(path: Path) -> str:
    return path.read_bytes()[-400:].decode("utf-8", "replace")


def exit_codes(module: str, folder: Path) -> dict[str, int | None]:
    """mutmut's verdict on each mutant by name."""
    return json.loads((folder / "mutants" / "alignment" / f"{module}.py.meta").read_text(encoding="utf-8"))["exit_code_by_key"]


def found(module: str, folder: Path) -> dict[str, Any]:
    """Counts of one module and its mutants that were not killed. UserError when mutmut left one unjudged."""
    mutated, codes = folder / "mutants" / "alignment" / f"{module}.py", exit_codes(module, folder)
    odd = sorted({str(code) for code in codes.values() if code not in KILLED | SURVIVED | TIMEOUT})
    if odd or not codes:
        raise UserError(f"mutmut left mutants of alignment/{module}.py unjudged (exit code {', '.join(odd) or 'none'}); remove {folder} and run the command again")
    functions = dict(_functions(mutated.read_text(encoding="utf-8")))
    return {
        "mutants": len(codes), "killed": sum(code in KILLED for code in codes.values()), "timeouts": sum(code in TIMEOUT for code in codes.values()),
        "survived": sum(code in SURVIVED for code in codes.values()),
        "survivors": [{"function": plain_name(key), "change": change(functions, key)} for key, code in codes.items() if code in SURVIVED],
    }


def plain_name(key: str) -> str:
    """``alignment.flips.xǁ_Flipsǁbase__mutmut_3`` is a mutant of ``_Flips.base``."""
    return key.rpartition("__mutmut_")[0].rpartition(".")[2].removeprefix("x").removeprefix("_" if "ǁ" not in key else "ǁ").replace("ǁ", ".")


def _functions(source: str) -> Iterator[tuple[str, list[str]]]:
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name:
            yield node.name, [line.strip().replace(node.name, "") for line in lines[node.lineno - 1:node.end_lineno]]


def change(functions: dict[str, list[str]], key: str) -> str:
    """What was changed, as ``before[old -> new]after`` within its line."""
    name = key.rpartition(".")[2]
    pairs = list(difflib.unified_diff(functions[name.rpartition("__mutmut_")[0] + "__mutmut_orig"], functions[name], n=0, lineterm=""))
    old, new = (" ".join(line[1:] for line in pairs if line[0] == sign and line[:3] != sign * 3) for sign in "-+")
    start = len(os.path.commonprefix([old, new]))
    end = len(os.path.commonprefix([old[start:][::-1], new[start:][::-1]]))
    cut = slice(start, len(old) - end)
    return f"{old[:start][-AROUND:]}[{old[cut]} -> {new[start:len(new) - end]}]{old[cut.stop:][:AROUND]}"
