"""``python -m alignment.report``: structure, weights, layers and inference of one model, both sides, in one report.

    python -m alignment.report --output out                                         # the embedded default: drawn pictures, no download
    python -m alignment.report --config C.yml --pytorch-model A.pth --test-images DIR --annotations FILE.json --output out
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import reports
from alignment import evidence, infer, inputs, layers, pair, pair_report, report_top, structure, upstream_part, upstream_repo, weights
from alignment.cli import parent_parser, prepare_output, run_cli, say, summary
from alignment.report_top import clear, counts
from alignment.result import EXIT_CODES, LAST_LINES, Result
from alignment.runners import child
from jt_nanodet.config import load_config
from jt_nanodet.config_reader import find_config
from jt_nanodet.data.testset import open_test_set
from jt_nanodet.errors import UserError

PARTS = ("structure", "weights", "layers", "infer")
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DEFAULT_CONFIG, DEFAULT_WEIGHTS = CONFIGS / "shapes.yml", CONFIGS / "shapes_weights.npz"
#: The configuration, kept with the report so that the report can be verified elsewhere.
CONFIG_COPY = "config.yml"


def main(argv: list[str]) -> int:
    if pair.asked(argv):
        return pair_report.main(argv)
    args = parser().parse_args(argv)
    clone = upstream_repo.for_reference(args)
    started = time.perf_counter()
    folder = prepare_output(args.output)
    clear(folder, (*PARTS, upstream_part.PART))
    inputs.check_arguments(args)
    embedded = args.config is None
    config_path = DEFAULT_CONFIG if embedded else args.config
    model = args.pytorch_model or (DEFAULT_WEIGHTS if embedded and DEFAULT_WEIGHTS.is_file() else None)
    config = load_config(config_path)
    if Path(find_config(config_path)).resolve() != (folder / CONFIG_COPY).resolve():
        shutil.copyfile(find_config(config_path), folder / CONFIG_COPY)
    options = {"images": str(args.test_images) if args.test_images else None, "annotations": str(args.annotations) if args.annotations else None,
               "batch_size": args.batch_size, "limit": args.limit}
    dataset = open_test_set(config, options["images"], options["annotations"])
    array, source = inputs.network_input(config, args.test_images, 1, args.seed)
    input_file = inputs.write_input(folder, array)
    common = {"config": str(config_path), "device": args.device, "seed": args.seed, "threads": args.threads}
    models = {"pytorch": model, "jittor": args.jittor_model or converted(model, folder)}
    given = {side: {**common, "weights": str(path) if path else None, **(clone if side == "pytorch" else {})} for side, path in models.items()}
    say(f"input of the layers: {source}; {len(dataset)} test images", args.verbosity)
    children = {}
    for number, side in enumerate(child.MODULES, 1):
        say(f"{number} of 3: the {side} side", args.verbosity)
        tasks = [structure.task(side, folder / "structure"), weights.task(side, folder / "weights"), *layers.tasks(side, folder / "layers", input_file),
                 infer.task(side, folder / "infer", options)]
        children[side] = child.run(side, tasks, given[side], folder, verbosity=args.verbosity)
    say("3 of 3: comparison, frames per second, report", args.verbosity)
    results: dict[str, Result] = {}
    results["structure"], tree = structure.judge(folder / "structure", common)
    (folder / "structure" / "structure.txt").write_text(tree + "\n", encoding="utf-8")
    results["weights"] = weights.judge(folder / "weights", common)
    results["layers"], divergence = layers.judge(folder / "layers", common, source)
    repro = layers.write_repro(folder / "layers", results["layers"], divergence, given, verbosity=args.verbosity)
    results["infer"] = infer.run(folder / "infer", given, options, rounds=args.rounds, verbosity=args.verbosity, done=True)
    if clone:
        results[upstream_part.PART] = upstream_part.run(folder / upstream_part.PART, given["pytorch"], config, clone, options, args.verbosity)
    for name, result in results.items():
        result.parts["command_line"] = command_of(name, args, config_path)
        result.write(folder / name)
        say(f"  {name:10s} {result.last_line}", args.verbosity)
    verdict = report_top.write(folder, results, children, title=f"NanoDet-Plus, {shown(config_path)}", command_line=command_of("report", args, config_path), device=args.device,
                               seed=args.seed, seconds=time.perf_counter() - started)
    paths = reports.write(folder)
    sealed = evidence.seal(folder, {"annotations": args.annotations})
    if args.verbosity >= 0:
        for result in results.values():
            if str(result.verdict) != "pass" and summary(result):
                print(summary(result))
        if divergence:
            layers.show(divergence, repro, "", args.verbosity)
        print(infer.text(results["infer"]))
        print(f"report: {paths['html']}")
        print(f"sealed: {evidence.FILE} has SHA-256 {sealed}; to check all of it: python -m alignment.verify {folder} --output DIR")
    print(f"{LAST_LINES[verdict]} | {', '.join(counts(results))}", flush=True)
    return EXIT_CODES[verdict]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m alignment.report", description=__doc__.split("\n\n")[0], parents=[parent_parser(config_required=False)],
                                   epilog="example: python -m alignment.report --output out")
    layers.weight_arguments(made)
    made.add_argument("--test-images", metavar="DIR", type=Path, help="folder of pictures; default: the configuration's validation set")
    made.add_argument("--annotations", metavar="FILE.json", type=Path, help="COCO annotations of these pictures: adds the mAP table")
    made.add_argument("--batch-size", metavar="N", type=int, default=8, help="images at once (default: 8)")
    made.add_argument("--limit", metavar="N", type=int, help="only the first N pictures (then no mAP)")
    made.add_argument("--rounds", metavar="N", type=int, default=5, help="timing rounds of each side; 0 leaves the timing out (default: 5)")
    made.add_argument("--threads", metavar="N", type=int, help="CPU threads of both sides")
    made.add_argument("--pair", metavar="FILE.py", help=pair.HELP)
    upstream_repo.arguments(made)
    return made


def converted(model: Path | None, folder: Path) -> Path | None:
    """The port's copy of the reference's weights, written by the converter that users use."""
    if model is None:
        return None
    import weights_convert

    if not model.is_file():
        raise UserError(f"there is no file {model}: give the weights with --pytorch-model")
    target = folder / "weights" / "converted.pkl"
    target.parent.mkdir(parents=True, exist_ok=True)
    weights_convert.convert(model, target)
    return target


def command_of(part: str, args: argparse.Namespace, config: Path) -> list[str]:
    """What to type to repeat one part, or the whole report."""
    words = ["python", "-m", f"alignment.{part}"]
    if args.config or part != "report":
        words += ["--config", shown(config)]
    if part != "structure":
        models = {"--pytorch-model": args.pytorch_model, "--jittor-model": args.jittor_model if part != upstream_part.PART else None}
        words += [w for flag, path in models.items() if path for w in (flag, str(path))]
    if part in ("layers", "infer", "report", "upstream") and args.test_images:
        words += ["--test-images", str(args.test_images)]
    if part in ("infer", "report", "upstream"):
        words += ["--annotations", str(args.annotations)] if args.annotations else []
    if part in ("infer", "report"):
        words += ["--limit", str(args.limit)] if args.limit else []
        words += ["--batch-size", str(args.batch_size), "--rounds", str(args.rounds)]
    if args.torch_repo and part != "weights":
        words += ["--torch-repo", str(args.torch_repo), *(["--any-commit"] if args.any_commit else [])]
    words += ["--threads", str(args.threads)] if args.threads and part in ("layers", "infer", "report") else []
    return [*words, "--device", args.device, "--seed", str(args.seed), "--output", str(args.output)]


def shown(path: Path) -> str:
    """The path as it is typed in the checkout."""
    try:
        return str(Path(path).resolve().relative_to(CONFIGS.parent))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(run_cli(main))
