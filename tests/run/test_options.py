"""The train command's options and what they do to the configuration."""
import pytest

from jt_nanodet.errors import UserError
from jt_nanodet.run.options import parse
from tests.training.tiny import SHAPES


def options(*words):
    return parse([str(SHAPES), *words], "train")


def test_defaults_are_the_files():
    o = options()
    assert o.config.schedule.total_epochs == 30 and o.device == "cpu" and o.seed == 0 and not o.resume and o.notes == ()


def test_everything_given_is_applied():
    o = options("--epochs", "3", "--batch-size", "2", "--workers", "0", "--seed", "7", "--save-dir", "x", "--device", "cuda", "--max-steps", "5", "--freeze-bn")
    c = o.config
    assert (c.schedule.total_epochs, c.schedule.lr_schedule.T_max, c.device.batchsize_per_gpu, c.device.workers_per_gpu) == (3, 3, 2, 0)
    assert (c.save_dir, o.device, o.max_steps, o.freeze_norm, o.seed) == ("x", "cuda", 5, True, 7)
    assert "T_max follows --epochs: 3 instead of 30" in o.notes[0]


def test_rate_warm_up_and_validation():
    before, o = options().config.schedule, options("--lr", "0.0005", "--warmup-steps", "0", "--val-intervals", "5")
    after = o.config.schedule
    assert (after.optimizer.lr, after.warmup.steps, after.val_intervals) == (0.0005, 0, 5)
    assert after.lr_schedule.eta_min == pytest.approx(before.lr_schedule.eta_min * 0.0005 / before.optimizer.lr) and "eta_min follows --lr" in o.notes[0]


def test_a_cosine_of_its_own_length_stays(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(SHAPES.read_text(encoding="utf-8").replace("T_max: 30", "T_max: 36"), encoding="utf-8")
    o = parse([str(path), "--epochs", "3"], "train")
    assert o.config.schedule.lr_schedule.T_max == 36 and o.notes == ()


def test_other_pictures():
    data = options("--train-images", "d", "--train-annotations", "a.json").config.data
    assert (data.train.name, data.train.img_path, data.train.ann_path, data.val.name) == ("CocoDataset", "d", "a.json", "ShapesDataset")


@pytest.mark.parametrize("words", [["--epochs", "0"], ["--workers", "-1"], ["--resume", "--load-weights", "w.npz"], ["--val-images", "d"],
                                   ["--lr", "0"], ["--lr", "nan"], ["--warmup-steps", "-1"], ["--val-intervals", "0"]])
def test_what_does_not_fit_is_refused(words):
    with pytest.raises(UserError):
        options(*words)
