"""Two files of detections from any program: no framework, their own resolution as floor, bad files refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignment import infer, results_files
from jt_nanodet.errors import UserError

FOUND = [{"image_id": 1, "category_id": 1, "bbox": [10.25, 20.5, 30.125, 40.0], "score": 0.91234}, {"image_id": 2, "category_id": 3, "bbox": [1.0, 2.0, 50.0, 60.0], "score": 0.5}]


def write(path: Path, found: object) -> Path:
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def run(folder: Path, *more: str) -> tuple[int, dict]:
    code = infer.main(["--pytorch-results", str(folder / "a.json"), "--jittor-results", str(folder / "b.json"), "--output", str(folder / "out"), "-q", *more])
    return code, json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))


def test_numbers_that_were_rounded_on_one_side_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.json", FOUND)
    write(tmp_path / "b.json", [{**one, "score": round(one["score"], 3)} for one in FOUND])
    code, result = run(tmp_path)
    assert (code, result["detections"]["matched"], result["device"]) == (0, 2, "none")


def test_a_box_that_moved_fails(tmp_path: Path) -> None:
    write(tmp_path / "a.json", FOUND)
    write(tmp_path / "b.json", [{**FOUND[0], "bbox": [11.25, 20.5, 30.125, 40.0]}, FOUND[1]])
    code, result = run(tmp_path)
    assert (code, result["reason"], result["detections"]["moved"]) == (1, "unexplained_detections", 1)


def test_with_annotations_there_are_metrics_and_a_bootstrap(tmp_path: Path) -> None:
    write(tmp_path / "a.json", FOUND)
    write(tmp_path / "b.json", FOUND)
    truth = write(tmp_path / "truth.json", {
        "images": [{"id": k, "width": 200, "height": 200, "file_name": f"{k}.png"} for k in (1, 2)], "categories": [{"id": k, "name": f"c{k}"} for k in (1, 3)],
        "annotations": [{"id": k, "image_id": k, "category_id": one["category_id"], "bbox": one["bbox"], "area": 1200, "iscrowd": 0} for k, one in enumerate(FOUND, 1)]})
    code, result = run(tmp_path, "--annotations", str(truth), "--resamples", "20")
    assert code == 0 and result["metrics"]["delta"]["mAP"] == 0 and result["bootstrap"]["metrics"]["mAP"]["high"] == 0 and result["compared"] == 13


def test_the_floor_of_a_run_can_be_taken(tmp_path: Path) -> None:
    write(tmp_path / "a.json", FOUND)
    write(tmp_path / "b.json", [{**FOUND[0], "bbox": [10.26, 20.5, 30.125, 40.0]}, FOUND[1]])
    (tmp_path / "before").mkdir()
    write(tmp_path / "before" / "result.json", {"schema_version": 1, "command": "infer", "verdict": "pass", "compared": 1, "failed": 0, "skipped": 0, "first_failure": None,
                                                "detections": {"floor": {"score": 1e-4, "box": 0.02}}})
    assert run(tmp_path)[0] == 1 and run(tmp_path, "--floor-from", str(tmp_path / "before"))[0] == 0


@pytest.mark.parametrize("found", [{}, [1], [{"image_id": 1}], [{**FOUND[0], "bbox": [1, 2, 3]}], [{**FOUND[0], "score": "high"}], [{**FOUND[0], "image_id": None}]])
def test_files_that_hold_no_detections(tmp_path: Path, found: object) -> None:
    with pytest.raises(UserError, match="give a JSON list"):
        results_files.read(write(tmp_path / "a.json", found))


def test_one_file_alone_and_a_file_twice(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.json", FOUND))
    with pytest.raises(UserError, match="--jittor-results"):
        infer.main(["--pytorch-results", path, "--output", str(tmp_path / "out")])
    with pytest.raises(UserError, match="both sides"):
        infer.main(["--pytorch-results", path, "--jittor-results", path, "--output", str(tmp_path / "out")])


def test_digits() -> None:
    assert results_files.half_unit([1.0, 0.25]) == 0.005 and results_files.half_unit([3.0]) == 0.5 and results_files.half_unit([0.1 + 0.2]) == 0


def test_no_framework_is_started(tmp_path: Path) -> None:
    write(tmp_path / "a.json", FOUND)
    write(tmp_path / "b.json", FOUND)
    code = ("import sys; from alignment import infer; infer.main(sys.argv[1:]); sys.exit(any(m in sys.modules for m in ('torch', 'jittor')))")
    words = ["--pytorch-results", str(tmp_path / "a.json"), "--jittor-results", str(tmp_path / "b.json"), "--output", str(tmp_path / "out")]
    assert subprocess.run([sys.executable, "-c", code, *words], cwd=Path(infer.__file__).parents[1], check=False).returncode == 0
