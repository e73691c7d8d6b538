"""jt_nanodet.data.loader and worker: the same batches however they are drawn; unreadable pictures; ends of all "
"kinds."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from jt_nanodet.config import DatasetConfig, PipelineConfig, load_config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.loader import DataLoader
from jt_nanodet.errors import UserError

NORMALIZE = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
LISTS = ("warp_matrix", "gt_bboxes", "gt_labels", "gt_bboxes_ignore")


@pytest.fixture(scope="module")
def shapes():
    from pathlib import Path

    config = load_config(Path(__file__).resolve().parents[2] / "configs/shapes.yml").data.train
    return build_dataset(dataclasses.replace(config, count=22, input_size=(96, 96), multi_scale=(0.7, 1.3)), "train")


def same(a, b):
    return (
        np.array_equal(a["img"], b["img"])
        and a["index"] == b["index"]
        and a["img_info"] == b["img_info"]
        and all(np.array_equal(x, y) for key in LISTS for x, y in zip(a[key], b[key]))
    )


def test_workers_change_nothing(shapes):
    alone = DataLoader(shapes, 4, seed=5)
    with DataLoader(shapes, 4, seed=5, workers=2, prefetch=3) as shared:
        for epoch in (0, 1):
            a, b = list(alone.epoch(epoch)), list(shared.epoch(epoch))
            assert len(a) == len(b) == len(alone) == 5 and all(map(same, a, b))
        kept = a[0]["img"].copy()
        # an epoch left in the middle must not leak into the next, nor a slot be filled under a batch given out
        left = next(iter(shared.epoch(3)))
        copy = left["img"].copy()
        assert same(next(shared.epoch(1, start=2)), a[2])
        assert np.array_equal(left["img"], copy) and np.array_equal(a[0]["img"], kept)
    assert not np.array_equal(a[0]["index"], next(alone.epoch(0))["index"])


def test_a_late_worker_does_not_write_into_a_newer_batch(shapes):
    expected = next(DataLoader(shapes, 4, seed=5).epoch(1))
    with DataLoader(shapes, 4, seed=5, workers=2) as loader:
        list(loader.epoch(0))
        late = loader._pool.processes[loader._pool.next_ticket % 2].pid
        os.kill(late, signal.SIGSTOP)
        try:
            loader._pool.submit(9, 0, [0, 1, 2, 3])  # what an abandoned epoch leaves under way, in slot 0
            threading.Timer(0.5, os.kill, (late, signal.SIGCONT)).start()
            assert same(next(loader.epoch(1)), expected)
        finally:
            os.kill(late, signal.SIGCONT)


def test_one_sample_is_drawn_anew_every_epoch_and_run(shapes):
    still = DataLoader(shapes, 22, shuffle=False)
    assert not same(next(still.epoch(0)), next(still.epoch(1)))
    assert not same(next(still.epoch(0)), next(DataLoader(shapes, 22, shuffle=False, seed=1).epoch(0)))
    assert same(next(still.epoch(0)), next(DataLoader(shapes, 22, shuffle=False).epoch(0)))


def test_two_processes_together_see_one_with_the_double_batch(shapes):
    one = list(DataLoader(shapes, 8).epoch(0))
    two = [list(DataLoader(shapes, 4, rank=r, world=2).epoch(0)) for r in range(2)]
    for whole, first, second in zip(one, *two, strict=True):
        assert whole["index"] == first["index"] + second["index"]
        assert all(np.array_equal(x, y) for x, y in zip(whole["gt_bboxes"], first["gt_bboxes"] + second["gt_bboxes"]))


def test_last_batch_may_be_smaller(shapes):
    loader = DataLoader(shapes, 8, drop_last=False, shuffle=False)
    assert [len(b["index"]) for b in loader.epoch(0)] == [8, 8, 6] and len(loader) == 3
    with pytest.raises(UserError, match="22 images do not fill one batch of 23; lower device.batchsize_per_gpu"):
        DataLoader(shapes, 23)


@pytest.fixture
def folder(tmp_path):
    """Eight pictures in a COCO folder, two of them broken."""
    import json

    images = [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 40} for n in range(8)]
    for n in range(8):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((40, 48, 3), 20 * n, np.uint8))
    (tmp_path / "3.png").write_bytes(b"broken")
    (tmp_path / "6.png").write_bytes((tmp_path / "5.png").read_bytes()[:60])
    (tmp_path / "ann.json").write_text(
        json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]})
    )
    return DatasetConfig(
        "CocoDataset", (32, 32), PipelineConfig(NORMALIZE), str(tmp_path), str(tmp_path / "ann.json"), keep_ratio=False
    ), tmp_path


def test_unreadable_pictures_are_replaced_named_and_counted(folder):
    config, path = folder
    dataset, told = build_dataset(config, "train"), []
    alone = DataLoader(dataset, 4, on_skip=lambda p, r: told.append((p, r)))
    assert alone.skipped_summary() is None
    batches = [b for e in range(3) for b in alone.epoch(e)]
    assert sorted(told) == [
        (str(path / "3.png"), "not a picture, or damaged"),
        (str(path / "6.png"), "the file is cut short"),
    ]
    assert alone.skipped == dict(told) and alone.skipped_samples >= 6
    assert alone.skipped_summary().startswith(
        f"2 images could not be read and were replaced {alone.skipped_samples} times: "
    )
    assert all(b["img"].shape == (4, 3, 32, 32) for b in batches)
    assert {i["file_name"] for b in batches for i in b["img_info"]} <= {f"{n}.png" for n in (0, 1, 2, 4, 5, 7)}
    with DataLoader(dataset, 4, workers=1) as shared:
        assert all(map(same, batches, (b for e in range(3) for b in shared.epoch(e))))
        assert shared.skipped == alone.skipped and shared.skipped_samples == alone.skipped_samples


def test_in_evaluation_an_unreadable_picture_stops_the_run(folder):
    dataset = build_dataset(folder[0], "val")
    for workers in (0, 1):
        with (
            DataLoader(dataset, 4, drop_last=False, workers=workers) as loader,
            pytest.raises(UserError, match="cannot read the image .*(3|6).png"),
        ):
            list(loader.epoch(0))


def test_a_folder_without_one_readable_picture(folder):
    config, path = folder
    for n in range(8):
        (path / f"{n}.png").write_bytes(b"")
    with pytest.raises(UserError, match="images drawn in a row cannot be read .*check img_path"):
        next(DataLoader(build_dataset(config, "train"), 4).epoch(0))


def test_a_killed_worker_is_reported(shapes):
    with DataLoader(shapes, 4, workers=2, timeout=60) as loader:
        steps = loader.epoch(0)
        next(steps)
        victim = loader._pool.processes[1]
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(
            UserError,
            match=f"data worker 1 .process {victim.pid}. ended unasked .killed by signal 9, often for lack of memory",
        ):
            list(steps)
            list(loader.epoch(1))


def test_workers_end_with_the_process_they_serve(repository):
    script = (
        "import time\nfrom jt_nanodet.config import load_config\nfrom jt_nanodet.data import build_dataset\nfrom "
        "jt_nanodet.data.loader import DataLoader\nimport dataclasses\n"
        "d = build_dataset(dataclasses.replace(load_config('configs/shapes.yml').data.train, count=8), 'train')\n"
        "l = DataLoader(d, 4, workers=1)\nnext(l.epoch(0))\nprint(l._pool.processes[0].pid, "
        "flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=repository, stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    os.kill(pid, 0)
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 20
    while time.monotonic() < until and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_of_a_framework_is_imported(repository):
    line = (
        "import sys, jt_nanodet.data.worker, jt_nanodet.data.loader, jt_nanodet.data.evaluator, "
        "jt_nanodet.data.shapes, jt_nanodet.data.voc, jt_nanodet.data.yolo, jt_nanodet.data.bench\n"
        "print([m for m in ('jittor', 'torch', 'torch_ref', 'alignment', 'pycocotools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", line], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bench_prints_one_json_object(repository, tmp_path, capsys):
    import json

    from jt_nanodet.data.bench import main

    config = tmp_path / "few.yml"
    config.write_text((repository / "configs/shapes.yml").read_text().replace("count: 1024", "count: 16"))
    assert main([str(config), "--images", "16", "--batch-size", "8"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] >= 16 and result["images_per_second"] > 0 and result["skipped"] == {}
    with pytest.raises(UserError, match="--images"):
        main([str(config), "--images", "0"])
