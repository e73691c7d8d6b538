"""Report folders for the tests, in both colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reports.made_up import get, make_report, put


@pytest.fixture
def passing(tmp_path: Path) -> Path:
    """A report folder in which everything is equal."""
    return make_report(tmp_path / "passing")


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A report folder with a wrong eps, a NaN, an unexplained detection and a metric beyond its limit."""
    return make_report(tmp_path / "failing", fail=True)


@pytest.fixture
def edit() -> Callable[[Path, str, Callable], None]:
    """`edit(folder, "layers", change)` loads a result, lets `change` alter it, and writes it back."""

    def apply(folder: Path, part: str, change: Callable) -> None:
        path = folder / (f"{part}/result.json" if part != "report" else "report.json")
        data = get(path)
        changed = change(data)
        put(path, data if changed is None else changed)

    return apply
