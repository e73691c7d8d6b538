"""``python -m alignment.report --pair FILE.py``: structure, weights, layers (forward and backward) and training of any two models, in one report.

    python -m alignment.report --pair docs/examples/resnet.py --output out/resnet
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import reports
from alignment import evidence, pair, pair_file, pair_train, pairing, report_top
from alignment.bundle import Bundle, array_sha256
from alignment.cli import prepare_output, say, summary
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import EXIT_CODES, LAST_LINES, Result, TensorResult
from alignment.train_run import text

#: In the order of the report. The first three are judged from the bundles below layers/, which stay with it.
PARTS = ("structure", "weights", "layers", "train")
#: The pair file, kept with the report so that the report can be verified elsewhere.
COPY = "pair.py"
STATUS = {"consistent": "the same name", "renamed": "renamed", "value_converted": "turned"}


def parser() -> argparse.ArgumentParser:
    made = pair.parser("report")
    pair_train.arguments(made)
    made.set_defaults(backward=True)
    return made


def main(argv: list[str]) -> int:
    args, started = parser().parse_args(argv), time.perf_counter()
    pair.check_arguments(args)
    optimizer, overrides = pair_train.optimizer_of(args), pair.read_layer_map(args.layer_map)
    folder = prepare_output(args.output)
    keep_file(args.pair, folder)
    report_top.clear(folder, PARTS)
    say("1 of 3: both sides, forward and backward", args.verbosity)
    children = pair.run_sides(args, folder / "layers", overrides)
    results = {name: judge(folder, name) for name in PARTS[:3]}
    say(f"2 of 3: training, {args.steps} steps", args.verbosity)
    results["train"], divergence = pair_train.run(args, optimizer, folder / "train", overrides)
    say("3 of 3: report", args.verbosity)
    for name, result in results.items():
        result.parts["command_line"] = command_of(name, args)
        result.write(folder / name)
        say(f"  {name:10s} {result.last_line}", args.verbosity)
    verdict = report_top.write(folder, results, children, title=f"Pair {args.pair}", command_line=command_of("report", args), device=args.device, seed=args.seed,
                               seconds=time.perf_counter() - started, more={"pair": args.pair})
    paths = reports.write(folder)
    sealed = evidence.seal(folder, {"pair": Path(args.pair) if pair_file.is_file(args.pair) else None, "layer_map": args.layer_map})
    if args.verbosity >= 0:
        for result in results.values():
            if summary(result):
                print(summary(result))
        pair.show(Bundle.open(folder / "layers" / pair.BUNDLES / "jittor"), results["layers"], None)
        print(text(results["train"], divergence))
        print(f"report: {paths['html']}")
        print(f"sealed: {evidence.FILE} has SHA-256 {sealed}; to check it: python -m alignment.verify {folder} --output DIR")
    print(f"{LAST_LINES[verdict]} | {', '.join(report_top.counts(results))}", flush=True)
    return EXIT_CODES[verdict]


def keep_file(spec: str, folder: Path) -> None:
    """A copy of the pair file in the report; a report made from its own copy keeps it."""
    if pair_file.is_file(spec):
        if Path(spec).resolve() != (folder / COPY).resolve():
            shutil.copyfile(spec, folder / COPY)
    else:
        (folder / COPY).unlink(missing_ok=True)


def judge(report: Path, name: str) -> Result:
    """One part from the bundles of the report; the same when the report is made and when it is verified."""
    folder = report / "layers"
    ref, cand, result = pair.opened(name, folder)
    if result.objections:
        return result
    if name == "structure":
        pair.structure(ref, cand, [pairing.Match(**m) for m in cand.header.extra["matches"]], result)
    elif name == "weights":
        weights(ref, cand, result)
    else:
        pair.layers(ref, cand, [pairing.Match(**m) for m in cand.header.extra["matches"]], result)
        pair.judge_backward(folder, ref, cand, result)
    return result


def weights(ref: Bundle, cand: Bundle, result: Result) -> None:
    """A row for every key of either side: where it went, and that the port holds it bit for bit."""
    extra = cand.header.extra
    for row in extra["account"]:
        source, target = row["source"], row["target"]
        if target is None:
            if source.rpartition(".")[2] in pairing.COUNTERS:
                result.leave_out(source, row["reason"])
            else:
                result.add(pair.missing(source, Reason.MISSING, row["reason"], stage="weights"))
            continue
        same = extra["loaded"][source] == array_sha256(ref[f"weight/{source}"])
        hint = f"{STATUS[row['status']]}: {target}" if same else f"the port's {target} does not hold the reference's bits"
        result.add(TensorResult(source, target, Verdict.PASS if same else Verdict.FAIL, Reason.OK if same else Reason.NOT_EXACT, Gate.EXACT, stage="weights",
                                shape=tuple(row["shape"]), dtype=row["dtype"], hint=hint))
    result.add(pair.missing(name, Reason.EXTRA, "no weight of the reference comes here", stage="weights") for name in extra["unfilled"])


def command_of(part: str, args: argparse.Namespace) -> list[str]:
    """What to type to repeat one part, or the whole report; the weights of a pair are a part of its structure."""
    words = ["python", "-m", f"alignment.{'structure' if part == 'weights' else part}", "--pair", args.pair]
    words += ["--backward"] if part == "layers" else []
    words += ["--layer-map", str(args.layer_map)] if args.layer_map else []
    if part in ("train", "report"):
        words += ["--steps", str(args.steps), "--optimizer", args.optimizer, *(["--lr", str(args.lr)] if args.lr is not None else [])]
    words += ["--threads", str(args.threads)] if args.threads else []
    return [*words, "--device", args.device, "--seed", str(args.seed), "--output", str(args.output)]


def is_one(report: Path) -> bool:
    """Whether the report in this folder is of a pair."""
    try:
        return "pair" in json.loads((report / "report.json").read_text(encoding="utf-8")) or (report / COPY).is_file()
    except (OSError, ValueError, TypeError):
        return (report / COPY).is_file()
