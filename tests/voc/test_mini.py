"""A mini set: seeded, every class where possible, a devkit of its own, nothing of it in both sides."""

from __future__ import annotations

import os

import pytest

from jt_nanodet.errors import UserError
from jt_nanodet.voc.devkit import default_splits, find_years
from jt_nanodet.voc.mini import choose, make
from jt_nanodet.voc.verify import verify
from tests.voc import devkit_maker

POOL = {f"{n:03d}": {"person"} | ({"bus"} if n == 77 else set()) | ({"cat", "dog"} if n % 40 == 5 else set()) for n in range(100)}


@pytest.mark.parametrize("seed", range(4))
def test_every_class_where_possible(seed):
    picked = choose(POOL, 4, seed)
    assert set().union(*(POOL[name] for name in picked)) == {"person", "bus", "cat", "dog"} and len(set(picked)) == 4
    assert picked == choose(dict(reversed(POOL.items())), 4, seed), "the order of the names does not matter"
    assert choose(POOL, 1, seed) == ["077"], "the rarest class first"


def test_the_seed_decides():
    assert choose(POOL, 30, 0) == choose(POOL, 30, 0) != choose(POOL, 30, 1)
    assert len(choose(POOL, 100, 0)) == 100


def test_the_new_devkit_is_sound(tmp_path):
    devkit_maker.make(tmp_path / "big")
    splits = default_splits(find_years(tmp_path / "big"))
    report = make(splits, tmp_path / "mini", {"train": 3, "val": 1}, 0)
    assert len(report["train"]["names"]) == 3 and report["train"]["classes"] == ["bus", "cat", "dog", "person"] and "sofa" in report["val"]["lacking"]
    again = verify(default_splits(find_years(tmp_path / "mini")))
    assert again["faults"] == [] and again["totals"]["train"]["images"] == 3 and again["totals"]["val"]["images"] == 1
    assert sorted(os.listdir(tmp_path)) == ["big", "mini"]


def test_too_few_pictures_and_a_used_folder(tmp_path):
    devkit_maker.make(tmp_path / "big")
    splits = default_splits(find_years(tmp_path / "big"))
    with pytest.raises(UserError, match="the lists hold 4"):
        make(splits, tmp_path / "mini", {"train": 5, "val": 1}, 0)
    with pytest.raises(UserError, match="not empty"):
        make(splits, tmp_path / "big", {"train": 1, "val": 1}, 0)
    assert sorted(os.listdir(tmp_path)) == ["big"]
