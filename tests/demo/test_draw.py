"""Boxes stand where they should, in their class's colour; marks are seen; every part stays inside the picture."""

from __future__ import annotations

import numpy as np
import pytest

from jt_nanodet.demo.draw import MARK, class_colour, draw, side_by_side


def one(label=0, score=0.9, box=(20, 30, 40, 50), name="thing"):
    return {"label": label, "name": name, "score": score, "bbox": list(box)}


def test_a_box_is_drawn_at_its_place_and_the_source_stays():
    image = np.zeros((120, 160, 3), np.uint8)
    picture = draw(image, [one()])
    assert not image.any() and tuple(picture[60, 20]) == class_colour(0) == tuple(picture[80, 40])
    assert not picture[40:70, 30:50].any(), "the inside is left alone"


def test_colours_of_classes_differ_and_are_not_the_mark():
    colours = [class_colour(n) for n in range(80)]
    assert len(set(colours)) == 80
    near = np.abs(np.array(colours)[:, None] - np.array(colours[:20])[None]).sum(2)
    assert min(near[i, j] for i in range(20) for j in range(20) if i != j) > 30
    assert np.abs(np.array(colours) - MARK).sum(1).min() > 60


def test_a_mark_is_seen_and_lies_on_top():
    plain = draw(np.zeros((120, 160, 3), np.uint8), [one(), one(1, 0.99)])
    marked = draw(np.zeros((120, 160, 3), np.uint8), [one(), one(1, 0.99)], ["only here", ""])
    assert tuple(plain[60, 20]) == class_colour(1) and tuple(marked[60, 20]) == MARK


@pytest.mark.parametrize("box", [(-50, -50, 20, 20), (0, 0, 160, 120), (150, 110, 400, 300), (5, 1, 3, 3), (10, 10, 0, 0)])
@pytest.mark.parametrize("shape", [(120, 160), (9, 7), (1, 1)])
def test_odd_boxes_and_small_pictures(box, shape):
    assert draw(np.zeros((*shape, 3), np.uint8), [one(box=box, name="飞机 with a long name")]).shape == (*shape, 3)


def test_side_by_side():
    halves = [np.full((50, 80, 3), v, np.uint8) for v in (10, 200)]
    both = side_by_side(halves, ("PyTorch", "Jittor"), "nothing differs")
    assert both.shape[1] == 166 and both.shape[0] > 50
    top = both.shape[0] - 50 - (both.shape[0] - 50) // 2
    assert (both[top : top + 50, :80] == 10).all() and (both[top : top + 50, 86:] == 200).all()
