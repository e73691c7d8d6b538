"""The command: what it prints, writes and exits with."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment.cli import run_cli
from alignment.logs import main
from tests.alignment_logs.logmaker import upstream_log


@pytest.fixture
def logs(tmp_path: Path):
    def make(name: str, seeds, **options) -> list[str]:
        paths = []
        for seed in seeds:
            path = tmp_path / f"{name}{seed}.txt"
            path.write_text(upstream_log(seed, **options), encoding="utf-8")
            paths.append(str(path))
        return paths
    return make


def run(capsys, output: Path, ref: list[str], cand: list[str], *more: str) -> tuple[int, str, dict]:
    code = run_cli(main, ["--pytorch-log", *ref, "--jittor-log", *cand, "--output", str(output), *more])
    printed = capsys.readouterr().out
    return code, printed, json.loads((output / "result.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "seeds, options, more, code, verdict, word",
    [
        (range(5), {}, ["--margin-loss", "3"], 0, "equivalent", "PASSED"),
        (range(5), {"factor": 1.2}, [], 1, "different", "FAILED"),
        (range(1), {}, [], 3, "cannot tell", "INCONCLUSIVE"),
    ],
)
def test_three_verdicts(logs, tmp_path: Path, capsys, seeds, options, more, code, verdict, word) -> None:
    ref, cand = logs("a", seeds), logs("b", [s + 20 for s in seeds], **options)
    got, printed, result = run(capsys, tmp_path / "out", ref, cand, *more)
    last = printed.strip().splitlines()[-1]
    assert got == code and result["statistics_verdict"] == verdict
    assert re.fullmatch(rf"{word} \| \d+ compared, \d+ failed, \d+ skipped", last)
    assert printed.startswith(verdict + ": ")
    if verdict == "cannot tell":
        assert "runs a side would decide" in printed or "no reasonable number" in printed


def test_what_is_written(logs, tmp_path: Path, capsys) -> None:
    _, _, result = run(capsys, tmp_path / "out", logs("a", [0, 1]), logs("b", [5, 6]))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"loss_curves", "loss_differences", "metric_curves", "learning_rate"}
    assert names == {"result.json", "logs.html", "logs.md"} | {f"{p}.{s}" for p in pictures for s in ("png", "svg")}
    page = (tmp_path / "out" / "logs.html").read_text(encoding="utf-8")
    assert "What was read" in page and "src='http" not in page and page.count("data:image/png") == 4
    section = (tmp_path / "out" / "logs.md").read_text(encoding="utf-8")
    assert section.startswith("## Training logs") and "| train/total loss, whole |" in section
    assert (tmp_path / "out" / "loss_curves.png").read_bytes()[:4] == b"\x89PNG"
    understood = result["logs"]["reference"][0]
    assert understood["lines"]["train"] == 800 and understood["series"]["train/loss_qfl"]["points"] == 800
    assert result["compared"] > 20 and result["schema_version"] == 1


def test_pictures_are_the_same_every_time(logs, tmp_path: Path, capsys) -> None:
    ref, cand = logs("a", [0, 1]), logs("b", [5, 6])
    for name in ("one", "two"):
        run(capsys, tmp_path / name, ref, cand)
    for path in (tmp_path / "one").glob("*.*g"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_copy_with_other_names_needs_the_map(logs, tmp_path: Path, capsys) -> None:
    ref = logs("a", [0])
    other = tmp_path / "other.txt"
    other.write_text(Path(ref[0]).read_text(encoding="utf-8").replace("loss_qfl", "cls_loss"), encoding="utf-8")
    code, printed, result = run(capsys, tmp_path / "out", ref, [str(other)], "--no-plots")
    assert code == 3 and "--map" in printed and result["skipped"] > 0
    (tmp_path / "map.txt").write_text("loss_qfl: cls_loss\naux_loss_qfl: aux_cls_loss\n", encoding="utf-8")
    code, _, result = run(capsys, tmp_path / "out", ref, [str(other)], "--map", str(tmp_path / "map.txt"), "--no-plots")
    assert code == 0 and result["skipped"] == 0


def test_nothing_in_common_is_never_a_pass(tmp_path: Path, capsys) -> None:
    for name, series in (("a", "alpha"), ("b", "beta")):
        (tmp_path / name).write_text("".join(f"step {i}: {series}: 0.{i:03d}\n" for i in range(1, 99)), encoding="utf-8")
    code, printed, result = run(capsys, tmp_path / "out", [str(tmp_path / "a")], [str(tmp_path / "b")])
    assert code == 3 and result["compared"] == 0 and "NOT COMPARABLE | 0 compared" in printed


@pytest.mark.parametrize(
    "more, word",
    [
        (["--margin-loss", "0"], "--margin-loss"),
        (["--seed-sd-metric", "-1"], "--seed-sd-metric"),
        (["--alpha", "0.9"], "--alpha"),
        (["--map", "absent.txt"], "--map"),
        (["--config", "absent.yml"], "--config"),
    ],
)
def test_usage_errors(logs, tmp_path: Path, capsys, more: list[str], word: str) -> None:
    arguments = ["--pytorch-log", *logs("a", [0]), "--jittor-log", *logs("b", [1]), "--output", str(tmp_path / "out"), *more]
    assert run_cli(main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.strip().splitlines()[-1].startswith("error: ") and word in captured.err and "Traceback" not in captured.err


def test_a_log_against_itself_is_refused(logs, tmp_path: Path, capsys) -> None:
    ref = logs("a", [0])
    assert run_cli(main, ["--pytorch-log", *ref, "--jittor-log", *ref, "--output", str(tmp_path / "out")]) == 2
    assert "both sides" in capsys.readouterr().err


@pytest.mark.slow
def test_a_million_lines(tmp_path: Path) -> None:
    lines = [line for line in upstream_log(0).splitlines() if "Train|" in line]
    for side in ("a", "b"):
        with open(tmp_path / f"{side}.txt", "w", encoding="utf-8") as file:
            for i in range(1_000_000):
                head, tail = lines[i % len(lines)].split("|Iter", 1)
                file.write(f"{head.replace(head.split('|Epoch')[1], f'{i // 1000 + 1}/1000')}|Iter{i}({i % 1000 + 1}/1000)|{tail.split('|', 1)[1]}\n")
    code = (
        "import resource, sys\nfrom alignment.logs import main\nfrom jt_nanodet.run.memory import peak_memory_bytes\nmain(sys.argv[1:])\n"
        "print(peak_memory_bytes() >> 20, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n"
    )
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, "--pytorch-log", str(tmp_path / "a.txt"), "--jittor-log", str(tmp_path / "b.txt"), "--output", str(tmp_path / "out")],
        capture_output=True, text=True, check=True,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    own, child = map(int, done.stdout.strip().splitlines()[-1].split())
    print(f"wall {wall:.1f} s, processor {processor:.1f} s, memory {own} MB and {child} MB in a reader")
    # Both logs together. The limit on time is on two free cores; a busy machine may take longer by the clock, but not in processor time.
    assert processor < 40 and own < 500 and child < 500
