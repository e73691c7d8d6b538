"""The main job on the embedded default: it passes, and what it leaves has every entry that others rely on."""

from __future__ import annotations

import importlib
import json
import math
import re
from xml.etree import ElementTree

import pytest

from alignment.noise import FLOAT64_RATIO, METRIC_BOUND
from jt_nanodet.config import METRIC_NAMES
from tests.parity.conftest import PARTS, PICTURES

pytestmark = [pytest.mark.torch, pytest.mark.jittor, pytest.mark.slow]
LAST_LINE = re.compile(r"(PASSED|FAILED|INCONCLUSIVE|NOT COMPARABLE) \| (\d+) compared, (\d+) failed, (\d+) skipped")
ALWAYS = ("schema_version", "command", "verdict", "compared", "failed", "skipped", "first_failure", "tensors", "versions", "hashes", "device", "seeds",
          "durations", "not_run")
ROW = ("name_ref", "name_cand", "verdict", "reason", "gate", "stage", "shape", "dtype", "max_abs", "tolerance", "tolerance_source", "floor", "own", "inherited",
       "module_type", "hint")
DETECTIONS = ("matched", "moved", "missing", "extra", "relabelled", "unexplained", "max_box_diff", "max_score_diff")


def test_the_report_passes(report):
    assert report.code == 0, report.out + report.err
    verdict, compared, failed, skipped = LAST_LINE.fullmatch(report.last_line).groups()
    assert verdict == "PASSED" and int(compared) > 1000 and (failed, skipped) == ("0", "0")


def test_the_top_sums_its_parts(report):
    top = json.loads((report.folder / "report.json").read_text())
    parts = [report.result(part) for part in PARTS]
    assert (top["schema_version"], top["command"], top["verdict"], top["first_failure"]) == (1, "report", "pass", None)
    for name in ("compared", "failed", "skipped"):
        assert top[name] == sum(part[name] for part in parts)
    assert report.last_line == f"PASSED | {top['compared']} compared, {top['failed']} failed, {top['skipped']} skipped"
    assert {"torch", "jittor", "numpy", "python"} <= set(top["versions"])
    assert {"processor", "cores", "system"} <= set(top["environment"]) and set(top["peak_memory_mb"]) == {"pytorch", "jittor"}
    assert top["command_line"][:3] == ["python", "-m", "alignment.report"] and "--output" in top["command_line"]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_the_fixed_entries(report, part):
    result = report.result(part)
    assert set(ALWAYS) <= set(result)
    assert (result["schema_version"], result["command"], result["verdict"], result["first_failure"]) == (1, part, "pass", None)
    assert result["compared"] > 0 and result["failed"] == 0 and len(result["hashes"]) >= 1
    assert result["command_line"][:3] == ["python", "-m", f"alignment.{part}"]
    for row in result["tensors"]:
        assert set(ROW) <= set(row)
    assert len({row["name_ref"] for row in result["tensors"]}) == len(result["tensors"])


def test_structure(report):
    result = report.result("structure")
    assert result["totals"]["pytorch"] == result["totals"]["jittor"] and result["totals"]["pytorch"]["flops"] > 0
    assert 0 < result["totals"]["parameters_at_inference"] < result["totals"]["pytorch"]["parameters"]
    assert result["structure"]["counts"] == {"match": len(result["rows"]), "diff": 0, "only_ref": 0, "only_cand": 0}
    assert (report.folder / "structure" / "structure.txt").read_text().count("\n") > len(result["rows"])


def test_weights(report):
    result = report.result("weights")
    assert len(result["tensors"]) == result["compared"] > 500
    assert {row["gate"] for row in result["tensors"]} == {"exact"}
    assert result["hashes"]["weights_pytorch"] == result["hashes"]["weights_jittor"]


def test_layers_cover_every_leaf(report):
    result = report.result("layers")
    rows = {row["name_ref"]: row for row in result["tensors"]}
    assert rows["observer/pytorch"]["verdict"] == rows["observer/jittor"]["verdict"] == "pass"
    assert {"decode/raw", "decode/boxes", "decode/scores"} <= set(rows) and result["first_divergence"] is None
    # of the module tree, everything that computes: what the structure part saw called must have been compared
    leaves = [row for row in json.loads((report.folder / "structure" / "pytorch.structure.json").read_text())["modules"] if row["leaf"] and row["calls"]]
    assert [row["path"] for row in leaves if row["path"] not in rows] == []
    for row in leaves:
        one = rows[row["path"]]
        assert one["own"] is not None and one["own"] <= one["tolerance"] and one["floor"] >= 0 and one["inherited"] is not None
    assert {"backbone", "fpn", "head"} <= set(result["stages"])


def test_raw_output_is_as_accurate_as_the_reference(report):
    raw = next(row for row in report.result("layers")["tensors"] if row["name_ref"] == "decode/raw")
    assert 0 < raw["err_cand_fp64"] <= FLOAT64_RATIO * raw["err_ref_fp64"]


def test_infer(report):
    result = report.result("infer")
    found = result["detections"]
    assert set(DETECTIONS) <= set(found) and result["images"] == PICTURES
    assert found["matched"] > 0 and found["unexplained"] == 0
    assert found["max_box_diff"] <= found["floor"]["box"] or found["moved"]
    for name in METRIC_NAMES:
        ours, theirs = result["metrics"]["jittor"][name], result["metrics"]["pytorch"][name]
        assert math.isclose(result["metrics"]["delta"][name], ours - theirs, abs_tol=1e-12) and abs(ours - theirs) < METRIC_BOUND
    assert result["metrics"]["pytorch"]["per_class"]
    rows = {row["name_ref"] for row in result["tensors"]}
    assert {"detections", *METRIC_NAMES} <= rows


def test_frames_per_second(report):
    fps = report.result("infer")["fps"]
    for side in ("pytorch", "jittor"):
        assert fps[side]["fps"] > 0 and 0 < fps[side]["p20_ms"] <= fps[side]["median_ms"] <= fps[side]["p80_ms"]
        assert set(fps[side]["phases"]) == {"preprocess", "forward", "postprocess"}
    assert set(fps["jittor_over_pytorch"]) == {"median", "min", "max"}


def test_detections_are_left_in_coco_format(report):
    for side in ("pytorch", "jittor"):
        entries = json.loads((report.folder / "infer" / f"{side}.coco.json").read_text())
        assert len(entries) == report.result("infer")["detections"]["total_ref" if side == "pytorch" else "total_cand"]
        assert all(set(entry) == {"image_id", "category_id", "bbox", "score"} for entry in entries)


def test_the_page_needs_nothing_else(report):
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page) + re.findall(r"url\(([^)]+)\)", page)
    assert [one for one in loaded if not one.strip("\"'").startswith(("data:", "#"))] == []
    assert "@import" not in page and "PASSED" in page


def test_the_other_forms_of_the_report(report):
    suites = ElementTree.parse(report.folder / "junit.xml").getroot()
    cases = list(suites.iter("testcase"))
    assert len(cases) > 1000 and not list(suites.iter("failure")) and not list(suites.iter("error"))
    assert "PASSED" in (report.folder / "report.md").read_text(encoding="utf-8")


def test_what_was_not_run_is_said(report):
    top = json.loads((report.folder / "report.json").read_text())
    assert [entry["name"] for entry in top["not_run"]] == ["GPU"]


def test_nothing_half_written_is_left(report):
    assert [str(path) for path in report.folder.rglob("*") if ".partial" in path.name or path.name.startswith(".tmp")] == []


@pytest.mark.parametrize("name", ["structure", "weights", "layers", "infer", "report"])
@pytest.mark.parametrize("words", [[], ["--output"], ["--output", "x", "--device", "tpu"], ["--output", "x", "--seed", "one"], ["--outptu", "x"]])
def test_usage_errors_exit_with_two(name, words, capsys):
    with pytest.raises(SystemExit) as error:
        importlib.import_module(f"alignment.{name}").main(words)
    assert error.value.code == 2 and "usage" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["structure", "weights", "layers", "infer", "report"])
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as error:
        importlib.import_module(f"alignment.{name}").main(["--help"])
    text = capsys.readouterr().out
    assert error.value.code == 0 and all(flag in text for flag in ("--config", "--output", "--device", "--seed"))
    if name in ("infer", "report"):
        assert all(flag in text for flag in ("--pytorch-model", "--jittor-model", "--test-images", "--annotations"))


def test_a_command_alone_says_the_same(report, tmp_path):
    """`structure` by itself, through its own command line, ends like its part of the report."""
    from tests.parity.conftest import CONFIG, command

    ran = command(tmp_path / "out", "alignment.structure", "--config", CONFIG, "-q")
    assert ran.code == 0 and ran.result()["verdict"] == "pass"
    assert ran.out.splitlines() == [ran.last_line] and LAST_LINE.fullmatch(ran.last_line)
    assert ran.result()["compared"] == report.result("structure")["compared"]


