"""Reading logs: every line accounted for, every format and encoding, and no guessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alignment.log_reader import find_runs, read_run
from jt_nanodet.errors import UserError
from tests.alignment_logs.logmaker import upstream_log

DATA = Path(__file__).parent / "data"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_the_real_log_is_read_whole(shared: Path) -> None:
    path = shared / "data" / "logs" / "pytorch_logs.txt"
    text = path.read_text(encoding="utf-8")
    run = read_run(path)
    # Counted here in the plainest way there is, and compared with what the reader says.
    assert run.lines["train"] == text.count("Train|") == 1902
    assert run.lines["val"] == text.count("Val|") == 120
    assert len(run.series["val/mAP"]) == text.count("Val_metrics") == 30
    assert run.lines["metric"] == 30 + text.count("\n Average ") + text.count("| person") + text.count("| barcode_1d")
    assert sum(run.lines.values()) == run.total_lines == len(text.splitlines())
    assert run.unread == [] and run.restarts == [] and run.gaps == [] and not run.cut
    assert run.seed == 42 and run.total_epochs == 150 and run.steps_per_epoch == 317
    assert all(len(run.series[f"train/{name}"]) == 1902 for name in ("lr", "loss_qfl", "loss_bbox", "loss_dfl", "aux_loss_qfl"))
    assert run.series["val/mAP"].value[-1] == 0.5548054515435218
    assert run.series["val/mAP"].epoch.tolist() == list(range(5, 151, 5))
    assert run.series["val/class_AP50/pallet"].value[-1] == 88.0
    assert run.series["val/coco_AR@0.50:0.95/large/100"].value[-1] == 0.728


def test_values_and_positions_of_upstream_lines(tmp_path: Path) -> None:
    text = upstream_log(3)
    run = read_run(write(tmp_path / "a.txt", text))
    series = run.series["train/loss_dfl"]
    wanted = [line.split("| loss_dfl:")[1].split("|")[0] for line in text.splitlines() if "Train|" in line]
    assert series.value.tolist() == [float(value) for value in wanted]
    assert series.step.tolist() == list(range(0, 4000, 5))
    assert np.isin(series.epoch, range(1, 41)).all()


@pytest.mark.parametrize(
    "line, expected",
    [
        ("Epoch 1/300: loss=2.456, cls_loss=1.234, box_loss=0.9", {"train/loss": 2.456, "train/cls_loss": 1.234, "train/box_loss": 0.9}),
        ("step 100 loss 2.345 lr 0.01", {"train/loss": 2.345, "train/lr": 0.01}),
        ("2024-05-01 10:00:00,123 - mmdet - INFO - Epoch(train) [1][50/317] lr: 1.0e-04, eta: 1:02:03, time: 0.21, loss_cls: 0.9", {"train/loss_cls": 0.9, "train/lr": 1e-4}),
        ("{'loss': 0.5, 'learning_rate': 1e-05, 'epoch': 2.0}", {"train/loss": 0.5, "train/learning_rate": 1e-5}),
        ("第 5 轮, 步数: 100, 损失: 0.75, 学习率=0.001", {"train/损失": 0.75, "train/学习率": 0.001}),
        ("[Epoch 7] iter: 30 val loss: 0.25", {"val/loss": 0.25}),
        ("Epoch 12 | mAP: 0.31 | AP_50: 0.5", {"val/mAP": 0.31, "val/AP_50": 0.5}),
        ("Iter 200: total loss = nan", {"train/total_loss": float("nan")}),
    ],
)
def test_lines_nobody_described(tmp_path: Path, line: str, expected: dict) -> None:
    run = read_run(write(tmp_path / "a.log", line + "\n"))
    found = {key: series.value[0] for key, series in run.series.items()}
    assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


def test_many_lines_of_a_shape_give_the_same_as_each_alone(tmp_path: Path) -> None:
    # The fast path must read what the slow path reads, whatever the width, sign or exponent of the numbers.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(50), 10.0 ** rng.integers(-12, 6, 50), [0.0, np.nan, np.inf, -np.inf]])
    lines = [f"epoch {i // 10 + 1} step {i}: loss={v!r}, AP_50_loss={i}, x: {-v:.3e}" for i, v in enumerate(values.tolist())]
    run = read_run(write(tmp_path / "a.log", "\n".join(lines) + "\n"))
    assert np.array_equal(run.series["train/loss"].value, values, equal_nan=True)
    assert run.series["train/AP_50_loss"].value.tolist() == list(range(len(values)))


def test_names_that_differ_in_a_digit_are_not_mixed_up(tmp_path: Path) -> None:
    text = "".join(f"step {i}: loss_1: {i}.5\nstep {i}: loss_2: {-i}.5\n" for i in range(1, 40))
    run = read_run(write(tmp_path / "a.log", text))
    assert (run.series["train/loss_1"].value > 0).all() and (run.series["train/loss_2"].value < 0).all()
    assert len(run.series["train/loss_1"]) == len(run.series["train/loss_2"]) == 39


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "开始训练，随机种子\n" + "".join(f"第 {i} 轮，步数：{i * 10}，损失：0.{i:03d}\r\n" for i in range(1, 60))
    run = read_run(write(tmp_path / "a.txt", text, encoding))
    assert len(run.series["train/损失"]) == 59 and run.series["train/损失"].value[-1] == 0.059
    assert run.unread == []


def test_a_log_cut_inside_a_character_stays_utf8(tmp_path: Path) -> None:
    data = "".join(f"步数: {i}, 损失: 0.{i:03d}\n" for i in range(1, 60)).encode()
    path = tmp_path / "a.txt"
    path.write_bytes(data[: data.rindex("损".encode()) + 1])
    run = read_run(path)
    assert len(run.series["train/损失"]) == 58 and run.cut


def test_colours_progress_bars_and_windows_lines(tmp_path: Path) -> None:
    text = "\x1b[35m[NanoDet]\x1b[0m step 1: loss=0.5\r\n" + "10%|#  |\r20%|## |\rstep 2: loss=0.25\r\n"
    run = read_run(write(tmp_path / "a.txt", text))
    assert run.series["train/loss"].value.tolist() == [0.5, 0.25]


def test_jsonl_nested_with_phases_and_words_for_nan(tmp_path: Path) -> None:
    rows = [{"phase": "train", "step": i, "epoch": 1, "lr": 0.1, "losses": {"loss": 1.0 / (i + 1), "loss_qfl": "NaN" if i == 5 else 0.5}} for i in range(20)]
    rows += [{"phase": "val", "epoch": 1, "metrics": {"mAP": 0.3}}, {"event": "start", "note": "no numbers"}]
    run = read_run(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\nnot json\n"))
    assert len(run.series["train/loss"]) == 20 and np.isnan(run.series["train/loss_qfl"].value[5])
    assert run.series["val/mAP"].value.tolist() == [0.3]
    assert run.lines == {"train": 20, "val": 1, "notice": 1, "unread": 1} and run.unread == [(23, "not json")]


def test_csv_with_empty_cells(tmp_path: Path) -> None:
    text = "epoch,step,train_loss,val/mAP\n1,0,0.5,\n1,10,0.4,\n1,19,,0.25\n2,20,0.3,\n"
    run = read_run(write(tmp_path / "a.csv", text))
    assert run.series["train/loss"].value.tolist() == [0.5, 0.4, 0.3]
    assert run.series["val/mAP"].epoch.tolist() == [1.0]
    semicolon = read_run(write(tmp_path / "b.csv", "iter;loss\n1;0.5\n2;0.25\n"))
    assert semicolon.series["train/loss"].step.tolist() == [1.0, 2.0]


def test_event_files_written_by_tensorboard() -> None:
    run = read_run(DATA / "events.out.tfevents.fixture")
    assert run.series["train/loss_qfl"].step.tolist() == list(range(0, 1000, 25))
    assert run.series["train/loss_qfl"].value == pytest.approx([1 / (i + 1) for i in range(40)], rel=2**-23, abs=0)
    assert run.series["train/loss_bbox"].value[1] == 1.0
    assert run.series["val/mAP"].step.tolist() == [5.0, 10.0]


def test_a_cut_and_a_damaged_event_file(tmp_path: Path) -> None:
    data = (DATA / "events.out.tfevents.fixture").read_bytes()
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(data[:-50])
    assert read_run(path).cut
    path.write_bytes(b"\x01" + data[1:])
    with pytest.raises(UserError, match="damaged"):
        read_run(path)


def test_restart_repeats_and_gap(tmp_path: Path) -> None:
    first = [f"step {i}: loss={1000 + i}" for i in range(0, 500, 10)]
    second = [f"step {i}: loss={2000 + i}" for i in range(300, 800, 10) if not 600 <= i < 650]
    run = read_run(write(tmp_path / "a.log", "\n".join(first + second) + "\n"))
    series = run.series["train/loss"]
    assert run.restarts == [(490.0, 300.0)] and run.repeated == 20
    assert (series.value[series.step >= 300] >= 2300).all() and (series.value[series.step < 300] < 1300).all()
    assert run.gaps == [(590.0, 650.0)]


def test_a_single_line_out_of_order_does_not_throw_the_log_away(tmp_path: Path) -> None:
    lines = [f"step {i}: loss={i}" for i in range(100, 500)]
    lines.insert(200, "step 3: loss=7")
    run = read_run(write(tmp_path / "a.log", "\n".join(lines) + "\n"))
    assert len(run.series["train/loss"]) == 400 and run.out_of_order == 1 and run.restarts == []


def test_steps_that_start_again_every_epoch(tmp_path: Path) -> None:
    counted = "".join(f"Epoch {e} Iter {i}/40 loss: 0.5\n" for e in range(1, 6) for i in range(10, 41, 10))
    run = read_run(write(tmp_path / "a.log", counted))
    assert run.series["train/loss"].step.tolist() == list(range(10, 201, 10)) and run.restarts == []
    uncounted = "".join(f"epoch: {e}, step: {i}, loss: 0.5\n" for e in range(1, 6) for i in range(0, 40, 10))
    run = read_run(write(tmp_path / "b.log", uncounted))
    assert run.series["train/loss"].step.tolist() == list(range(0, 200, 10)) and any("40 steps long" in note for note in run.notes)


def test_the_last_line_cut_off(tmp_path: Path) -> None:
    text = upstream_log(1)
    at = text.rindex("Train|") + 70
    run = read_run(write(tmp_path / "a.txt", text[:at]))
    assert run.cut and run.lines["cut"] == 1
    plain = "".join(f"step {i}: loss=0.{i:04d}\n" for i in range(1, 50))
    run = read_run(write(tmp_path / "b.txt", plain + "step 50: loss=0.00"))
    assert run.cut and len(run.series["train/loss"]) == 49
    run = read_run(write(tmp_path / "c.txt", plain + "step 50: loss=0.0050"))
    assert not run.cut and len(run.series["train/loss"]) == 50


def test_a_time_that_runs_backwards(tmp_path: Path) -> None:
    text = "".join(f"2024-01-01 10:00:{s:02d} step {i}: loss=0.5\n" for i, s in enumerate([1, 2, 9, 4, 5, 6]))
    run = read_run(write(tmp_path / "a.log", text))
    assert run.backwards == [(4, "2024-01-01 10:00:09", "2024-01-01 10:00:04")]


@pytest.mark.parametrize(
    "text, word",
    [("loss: 0.5\nloss: 0.4\n", "--step-name"), ("a;b\n1;2\n", "step or an epoch"), ("", "empty"), ("\x00\x01\x02\x00\x00\x09" * 50, "binary")],
)
def test_refuses_rather_than_guesses(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(UserError, match=word):
        read_run(write(tmp_path / "a.log", text))


def test_the_user_names_the_step(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", "".join(f"tick {i} loss: 0.{i}\n" for i in range(1, 9)))
    with pytest.raises(UserError):
        read_run(path)
    assert read_run(path, step_name="tick").series["train/loss"].step.tolist() == list(range(1, 9))


def test_folders_hold_seeds(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"seed{i}").mkdir()
        write(tmp_path / f"seed{i}" / "logs.txt", upstream_log(i, epochs=5))
        write(tmp_path / f"seed{i}" / "train_cfg.yml", "lr: 0.1\n")
    assert [path.parent.name for path in find_runs([tmp_path])] == ["seed0", "seed1", "seed2"]
    with pytest.raises(UserError, match="twice"):
        find_runs([tmp_path, tmp_path / "seed1" / "logs.txt"])
    with pytest.raises(UserError, match="does not exist"):
        find_runs([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no log"):
        find_runs([tmp_path / "empty"])


def test_summaries_are_not_points(tmp_path: Path) -> None:
    text = "".join(f"Epoch {e}: mAP: 0.{e}\n" for e in range(1, 6)) + "Best mAP: 0.5\n"
    run = read_run(write(tmp_path / "a.log", text))
    assert run.series["val/mAP"].value.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert run.summaries == [("mAP", 0.5, 6)]


def own_run(folder: Path, seed: int, epochs: int = 12, per_epoch: int = 40) -> Path:
    """A run folder as our trainer writes it, by the trainer's own log."""
    from jt_nanodet.config import METRIC_NAMES
    from jt_nanodet.run.log import RunLog

    rng = np.random.default_rng(seed)
    folder.mkdir()
    log = RunLog(folder, {"seed": seed, "total_epochs": epochs, "side": "jittor", "threads": 1})
    for epoch in range(1, epochs + 1):
        sums: dict[str, float] = {}
        for batch in range(per_epoch):
            where = {"epoch": epoch, "epochs": epochs, "step": (epoch - 1) * per_epoch + batch, "batch": batch + 1, "batches": per_epoch}
            terms = {name: float(1 + 0.1 * rng.standard_normal()) for name in ("loss_qfl", "loss_bbox", "loss_dfl")}
            sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
            if where["step"] % 10 == 0:
                log.losses("Train", where, 0.1 / epoch, terms)
            log.row({"type": "train", **where, "lr": 0.1 / epoch, "loss": sum(terms.values()), **terms, "grad_norm": 1.0 + batch, "seconds": 0.1, "data_seconds": 0.0})
        log.epoch(epoch, epochs, {name: value / per_epoch for name, value in sums.items()}, 0.1 / epoch)
        where = {"epoch": epoch, "epochs": epochs, "step": epoch * per_epoch, "batch": 1, "batches": 3}
        log.losses("Val", where, 0.1 / epoch, terms)
        log.row({"type": "val_loss", **where, "loss": sum(terms.values()), **terms})
        log.metrics(epoch, epoch * per_epoch, {name: 0.3 + epoch / 100 for name in METRIC_NAMES} | {"per_class": {"cat": 0.5}})
    log.close()
    return folder


def test_our_own_run_reads_alike_in_all_its_forms(tmp_path: Path) -> None:
    folder = own_run(tmp_path / "run", 3)
    assert find_runs([folder]) == [folder / "log.jsonl"]
    rows, text = read_run(folder / "log.jsonl"), read_run(folder / "logs.txt")
    events = read_run(next(folder.glob("events*")))
    assert rows.seed == 3 and rows.total_epochs == text.total_epochs == 12 and rows.steps_per_epoch == text.steps_per_epoch == 40
    assert not rows.unread and not text.unread
    for key in ("train/lr", "train/loss_qfl", "val/loss_qfl", "val/mAP", "epoch/loss", "epoch/cls_loss", "epoch/reg_loss", "epoch/lr"):
        assert key in rows.series and key in text.series, key
    fine, coarse = rows.series["train/loss_qfl"], text.series["train/loss_qfl"]
    assert len(fine) == 480 and coarse.step.tolist() == list(range(0, 480, 10))
    assert np.array_equal(np.round(fine.value[::10], 4), coarse.value)
    assert np.array_equal(events.series["train/loss_qfl"].step, coarse.step)
    assert np.array_equal(rows.series["val/mAP"].epoch, range(1, 13)) and np.array_equal(events.series["val/mAP"].step, range(1, 13))
    assert "val/per_class/cat" in rows.series and "train/threads" not in rows.series
