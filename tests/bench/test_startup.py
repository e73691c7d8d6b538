"""What is measured of the start, on a tiny configuration and in the cache that is there."""
import json
from pathlib import Path

import pytest

from jt_nanodet.bench import startup
from jt_nanodet.errors import UserError
from tests.training.tiny import write_tiny


@pytest.mark.jittor
@pytest.mark.slow
def test_fewer_kernels_with_the_operators(tmp_path, jittor, capsys, monkeypatch):
    """Against the recorded ordinary graph: compiling its kernels here would take two minutes and show the same."""
    plain = json.loads((Path(__file__).parents[2] / "reports" / "results" / "startup_cpu.json").read_text(encoding="utf-8"))["steps"]["ordinary graph"]
    monkeypatch.setattr(startup, "IMPORTS", ("reports",))
    monkeypatch.setattr(startup, "GRAPHS", {"operators": "0"})
    assert startup.main([str(write_tiny(tmp_path)), "--output", str(tmp_path / "startup.json")]) == 0
    document = json.loads((tmp_path / "startup.json").read_text(encoding="utf-8"))
    ours = document["steps"]["operators"]
    assert ours["kernels"] < 0.75 * plain["kernels"] and ours["launches"] < 0.5 * plain["launches"]
    assert 0 < ours["first"] and 0 < ours["second"] and ours["built"] == 0
    assert all(len(row) == len(table["columns"]) for table in document["tables"].values() for row in table["rows"]) and len(document["tables"]["steps"]["rows"]) == 1
    assert "kernels in" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--batch-size", "0"], ["no-such.yml"]])
def test_bad_input_is_one_sentence(words):
    with pytest.raises(UserError):
        startup.main(words)
