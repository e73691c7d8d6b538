"""How wide a bound may be against the tensor it judges, and still decide."""

from __future__ import annotations

import pytest

from alignment.noise import Floor
from alignment.reasons import Reason
from alignment.train_judge import FIRST_MOMENT, tolerance


def of_scalar(relative: float) -> Floor:
    return Floor(max_abs=relative * 1e-6, rmse=relative * 1e-6, scale=1e-6, size=1, dtype="float32", repeats=5)


@pytest.mark.parametrize(
    ("name", "relative", "decides"),
    [
        ("after/optimizer/exp_avg/head.scale", 5e-4, True),  # a mean of gradients that cancelled
        ("after/optimizer/momentum/head.scale", 5e-4, True),
        ("after/optimizer/exp_avg/head.scale", 2e-2, False),  # of which nothing is left
        ("after/optimizer/exp_avg_sq/head.scale", 5e-4, False),  # squares do not cancel
        ("after/model/head.scale", 5e-4, False),
        ("after/optimizer/exp_avg_sq/head.scale", 1e-6, True),
    ],
)
def test_means_of_gradients_may_cancel(name, relative, decides):
    bound = tolerance(of_scalar(relative), "optimizer", name)
    assert (bound.undecidable is None) is decides and bound.undecidable in (None, Reason.FLOOR_TOO_WIDE)
    assert bound.bound >= 2 * relative * 1e-6  # never another bound: only whether it decides


@pytest.mark.torch
def test_the_first_moment_of_every_optimiser_is_known_by_its_name():
    from torch_ref import optim

    firsts = {kind.__name__: kind.moment_names[0] for kind in (optim.AdamW, optim.SGD)}
    assert all(FIRST_MOMENT.search(f"after/optimizer/{name}/head.scale") for name in firsts.values()), firsts
    assert not FIRST_MOMENT.search(f"after/optimizer/{optim.AdamW.moment_names[1]}/momentum")
