"""What is measured of the start, on a tiny configuration and in the cache that is there."""
import json

import pytest

from jt_nanodet.bench import startup
from jt_nanodet.errors import UserError
from tests.training.tiny import write_tiny


@pytest.mark.jittor
@pytest.mark.slow
def test_fewer_kernels_with_the_operators(tmp_path, jittor, capsys, monkeypatch):
    monkeypatch.setattr(startup, "IMPORTS", ("reports",))
    assert startup.main([str(write_tiny(tmp_path)), "--output", str(tmp_path / "startup.json")]) == 0
    document = json.loads((tmp_path / "startup.json").read_text(encoding="utf-8"))
    ours, plain = (document["steps"][name] for name in ("operators", "ordinary graph"))
    assert ours["kernels"] < 0.75 * plain["kernels"] and ours["launches"] < 0.5 * plain["launches"]
    assert 0 < ours["first"] and 0 < ours["second"] and ours["built"] == 0
    assert all(len(row) == len(table["columns"]) for table in document["tables"].values() for row in table["rows"]) and len(document["tables"]["steps"]["rows"]) == 2
    assert "kernels in" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--batch-size", "0"], ["no-such.yml"]])
def test_bad_input_is_one_sentence(words):
    with pytest.raises(UserError):
        startup.main(words)
