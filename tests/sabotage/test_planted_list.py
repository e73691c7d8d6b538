"""docs/planted-faults.md: every test it names exists, and every case that plants a fault stands in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "planted-faults.md"
#: Tests whose every case plants a fault.
PLANTING = {
    "sabotage/test_sabotage_core.py": ("test_planted_fault", "test_planted_variant"),
    "sabotage/test_sabotage_port.py": ("test_in_the_network", "test_in_the_structure", "test_on_pictures", "test_in_the_postprocessing", "test_weights_that_do_not_fit_are_refused",
                                       "test_a_child_that_fails_is_never_a_pass"),
    "alignment_train/test_planted.py": ("test_found_at_its_own_step_and_name",),
    "alignment_train/test_planted_rules.py": ("test_found_in_its_own_stage", "test_found_at_its_edge"),
}
#: Rows of the list of what published comparators let through.
ROWS = 23


def rows(text: str) -> list[list[str]]:
    found = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    return [cells for cells in found if cells[-1] not in ("planted by", "---")]


def named(cell: str) -> set[tuple[str, str]]:
    """(file, test) of a cell: `file`: `test`, `test`; `file`: ..."""
    found, file = set(), ""
    for text in re.findall(r"`([^`]+)`", cell):
        if re.fullmatch(r"[\w/]+\.py", text):
            file = text
        else:
            found.add((file, text))
    return found


@pytest.fixture(scope="module")
def collected() -> set[tuple[str, str]]:
    """Every test of the files that the page names, and of those that plant."""
    files = sorted({file for cells in rows(PAGE.read_text(encoding="utf-8")) for file, _ in named(cells[-1])} | set(PLANTING))
    run = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *(f"tests/{file}" for file in files)], cwd=ROOT, capture_output=True,
                         text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = [line.removeprefix("tests/").partition("::") for line in run.stdout.splitlines() if "::" in line]
    return {(file, test) for file, _, test in lines} | {(file, test.partition("[")[0]) for file, _, test in lines}


@pytest.mark.torch
def test_every_named_test_exists(collected):
    wrong = {f"{cells[-2]}: {file}::{test}" for cells in rows(PAGE.read_text(encoding="utf-8")) for file, test in named(cells[-1]) if (file, test) not in collected}
    assert not wrong


@pytest.mark.torch
def test_every_planted_case_stands_in_the_page(collected):
    shown = {one for cells in rows(PAGE.read_text(encoding="utf-8")) for one in named(cells[-1])}
    planting = {(file, test) for file, test in collected if test.partition("[")[0] in PLANTING.get(file, ()) and "[" in test}
    assert len(planting) > 80 and not planting - shown


def test_every_row_of_the_list_has_a_test_that_plants_it():
    found = rows(PAGE.read_text(encoding="utf-8"))
    assert [cells[0] for cells in found if cells[0].isdigit()] == [str(number) for number in range(1, ROWS + 1)]
    assert len(found) > 80 and all(named(cells[-1]) and all(file for file, _ in named(cells[-1])) for cells in found)


def test_the_reading_of_the_page():
    text = "| no. | planted fault | planted by |\n| --- | --- | --- |\n| 1 | a, b | `a/b.py`: `t[x, y (1,)]`, `u`; `c.py`: `v` |\n"
    assert [named(cells[-1]) for cells in rows(text)] == [{("a/b.py", "t[x, y (1,)]"), ("a/b.py", "u"), ("c.py", "v")}]
