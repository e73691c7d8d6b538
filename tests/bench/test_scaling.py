"""``bench scaling``: growth beside work, bad input, and the whole way on a tiny network."""

from __future__ import annotations

import json

import pytest

from jt_nanodet.bench import scaling
from jt_nanodet.errors import UserError
from tests.training.tiny import write_tiny


def rows(*pairs):
    return [{"number": n, "ms": {"median": ms}, "memory_mb": 100.0 + n} for n, ms in pairs]


def test_growth_is_beside_the_work():
    found = {one["series"]: one for one in scaling.growth({"batch": rows((1, 5.0), (8, 40.0)), "size": rows((160, 1.0), (320, 4.0)), "threads": rows((1, 9.0), (2, 5.0)),
                                                            "assignment": rows((1, 1.0))})}
    assert found["batch"]["work"] == 8 and found["batch"]["time"] == 8 and found["batch"]["memory_mb"] == [101, 108]
    assert found["size"]["work"] == 4 and found["threads"]["work"] == 0.5 and "assignment" not in found and found["size"]["memory_mb"] is None


@pytest.mark.parametrize(("words", "said"), [(["--batches", "0"], "--batches are counts"), (["--sizes", "100"], "multiples of 32"), (["--threads", "0"], "nothing to measure"),
                                             (["--boxes", "many"], "no list of numbers")])
def test_bad_input_is_one_sentence(words, said):
    with pytest.raises(UserError, match=said):
        scaling.main(["configs/shapes.yml", *words])


@pytest.mark.jittor
@pytest.mark.slow
def test_a_tiny_network_grows(tmp_path, jittor, capsys):
    output = tmp_path / "scaling.json"
    words = ["--batches", "1,4", "--sizes", "64", "--candidates", "10", "--boxes", "1,10", "--threads", "1", "--seconds", "0.05", "--least", "2", "--output", str(output)]
    assert scaling.main([str(write_tiny(tmp_path)), *words]) == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    assert [len(document["series"][name]) for name in scaling.SERIES] == [2, 1, 1, 1, 2] and {one["series"] for one in document["growth"]} == {"batch", "assignment"}
    assert len(document["neighbours"]["slower"]) == 2 and document["neighbours"]["throughput_kept"] > 0
    assert all(len(row) == len(table["columns"]) for table in document["tables"].values() for row in table["rows"])
    assert "two processes together" in capsys.readouterr().out
