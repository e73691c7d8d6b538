"""Which boxes count as differing, and that nothing else does."""

from __future__ import annotations

import pytest

from jt_nanodet.demo.compare import PIXELS, SCORE, differences, foot

BASE = [{"label": 0, "score": 0.9, "bbox": [0, 0, 40, 40]}, {"label": 0, "score": 0.8, "bbox": [100, 0, 40, 40]}, {"label": 2, "score": 0.7, "bbox": [0, 100, 40, 40]}]


def altered(n=0, **change):
    return [{**one, **change} if at == n else dict(one) for at, one in enumerate(BASE)]


def test_equal_lists_in_any_order():
    assert differences(BASE, BASE[::-1]) == (["", "", ""], ["", "", ""], {"equal": 3, "differing": 0, "box": 0.0, "score": 0.0})
    assert differences([], [])[2]["differing"] == 0


@pytest.mark.parametrize(("other", "word"), [
    (altered(bbox=[PIXELS * 1.1, 0, 40, 40]), "moved"),
    (altered(bbox=[PIXELS * 0.9, 0, 40, 40]), ""),
    (altered(score=0.9 - SCORE * 1.1), "score"),
    (altered(score=0.9 - SCORE * 0.9), ""),
    (altered(label=5), "class"),
    (altered(bbox=[200, 200, 40, 40]), "only here"),
    (BASE[1:], "only here"),
])  # fmt: skip
def test_one_change(other, word):
    first, second, numbers = differences(BASE, other)
    assert first == [word, "", ""] and numbers["equal"] == 3 - bool(word)
    assert differences(other, BASE)[2]["differing"] == numbers["differing"] == (0 if not word else 2 if len(other) == 3 and word == "only here" else 1)
    assert second.count("") == numbers["equal"]
    assert f"{numbers['differing']} differ" in foot(numbers)


def test_a_box_is_used_once():
    twice = [BASE[0], {**BASE[0], "score": 0.6}]
    first, second, numbers = differences(twice, [BASE[0]])
    assert first == ["", "only here"] and second == [""] and numbers["differing"] == 1
