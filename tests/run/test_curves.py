"""Curves from a log."""
import json

from jt_nanodet.run.curves import write_curves


def rows(tmp_path, *values):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(v) + "\n" for v in values))


def test_both_pictures(tmp_path):
    train = [{"type": "train", "step": s, "loss": 3.0 - s, "loss_qfl": 1.0, "loss_bbox": 1.0, "loss_dfl": 1.0 - s} for s in range(2)]
    rows(tmp_path, {"type": "header"}, *train, {"type": "train", "step": 2, "loss": "nan"}, {"type": "val", "epoch": 1, "mAP": 0.1, "AP_50": 0.2})
    written = write_curves(tmp_path)
    assert [p.name for p in written] == ["loss.png", "map.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written)


def test_without_points_no_picture(tmp_path):
    rows(tmp_path, {"type": "header"})
    assert write_curves(tmp_path) == []
