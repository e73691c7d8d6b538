"""Log lines, rows and time left."""
import json

from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.run.log import RunLog, TimeLeft, read_rows

WHERE = {"epoch": 2, "epochs": 3, "step": 40, "batch": 1, "batches": 40}


def test_lines_and_rows(tmp_path, capsys):
    log = RunLog(tmp_path, {"seed": 4})
    log.losses("Train", WHERE, 0.00123, {"loss_qfl": 0.5, "aux_loss_qfl": 0.25, "loss_bbox": 1.0})
    log.epoch(2, 3, {"loss_qfl": 0.5, "aux_loss_qfl": 0.25, "loss_bbox": 1.0}, 0.001)
    log.metrics(2, 40, {**{k: 0.5 for k in METRIC_NAMES}, "per_class": {"a": None}})
    log.row({"type": "train", "loss": float("nan")})
    log.close()
    text = capsys.readouterr().out
    assert "Train|Epoch2/3|Iter40(1/40)| mem:" in text and "| lr:1.23e-03| loss_qfl:0.5000| aux_loss_qfl:0.2500| loss_bbox:1.0000| \n" in text
    assert "Epoch 2/3: loss=1.7500 cls_loss=0.7500 reg_loss=1.0000 lr=0.001" in text and "Val_metrics: {'mAP': 0.5, " in text
    rows = read_rows(tmp_path)
    assert [r["type"] for r in rows] == ["header", "epoch", "val", "train"] and rows[3]["loss"] == "nan"


def test_resuming_ends_a_line_that_a_kill_cut(tmp_path):
    RunLog(tmp_path, {}).close()
    with open(tmp_path / "log.jsonl", "a") as f:
        f.write('{"type": "tra')
    log = RunLog(tmp_path, {}, resumed=True)
    log.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[2])["resumed"] and len(read_rows(tmp_path)) == 2


def test_a_silent_process_writes_nothing(tmp_path, capsys):
    log = RunLog(tmp_path, {}, silent=True)
    log.info("x")
    log.losses("Train", WHERE, 0.1, {})
    log.close()
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_time_left(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("jt_nanodet.run.log.time.monotonic", lambda: clock[0])
    left = TimeLeft(3700)
    assert left.text(1) == "time left not known yet"
    clock[0] += 20
    assert left.text(11) == "2:02:58 left"
