"""``python -m alignment.layers``: every module's output, own and inherited error, against a measured floor.

The reference runs once with every call recorded. The candidate runs once on the same input, and then each of its modules alone on the
*reference's* input: what differs there is its own error. Float64 judges both, harmless changes give the floor (`alignment.noise`).

    python -m alignment.layers --config configs/nanodet-plus-m_320.yml --pytorch-model A.pth --jittor-model B.pkl --images DIR --output out
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment import backward, dumps, inputs, layers_repro, locate, pair, pair_dumps, recommend, upstream, upstream_repo
from alignment.bundle import Bundle, comparable
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.compare import compare_tensors
from alignment.noise import FLOAT64_RATIO, SAME_FORMULA, Floor, Tolerance, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners import child
from jt_nanodet.config import load_config

#: Outputs of the untapped run, judged by the whole run's floor.
DECODED = {"decode/raw": "head", "decode/boxes": "decode/boxes", "decode/scores": "decode/scores"}


def tasks(side: str, folder: Path, input_file: Path, float64: str | None = None) -> list[dict[str, Any]]:
    """What the runner of `side` is asked to do; the reference must have run before the candidate. `float64`: a shell pattern of calls that
    the candidate computes in float64 as well."""
    output = str(folder / "bundles" / side)
    given = {"inputs": str(input_file)} if side == "pytorch" else {"reference": str(folder / "bundles" / "pytorch"), "float64": float64}
    return [{"kind": "layers", "output": output, **given}]


def judge(folder: Path, common: dict[str, Any], input_name: str = "") -> tuple[Result, locate.Divergence | None]:
    """The result from both bundles, and the first divergence."""
    ref, cand = (Bundle.open(folder / "bundles" / side) for side in child.MODULES)
    extra = ref.header.extra
    result = Result("layers", device=common["device"], seeds={"seed": common["seed"]}, versions={**ref.header.versions, **cand.header.versions})
    result.hashes = {"config": ref.header.config_sha256, "weights": ref.header.weights_sha256, "inputs": ref.header.inputs_sha256,
                     "code_pytorch": ref.header.code_sha256, "code_jittor": cand.header.code_sha256}
    result.durations = {"pytorch": ref.header.durations.get("total", 0.0), "jittor": cand.header.durations.get("total", 0.0)}
    # the code as it is now: a bundle that an earlier version left proves nothing about this one
    old = [one for side, bundle in (("pytorch", ref), ("jittor", cand)) for one in bundle.stale(code_sha256=child.code_sha256(side))]
    for objection in comparable(ref, cand) + old:
        result.object(objection.reason, objection.text)
    if not result.objections:
        for side, bundle in (("pytorch", ref), ("jittor", cand)):
            result.check(f"observer/{side}", bundle.header.extra["observer_equal"], Reason.OBSERVER_CHANGED_RESULT,
                         "" if bundle.header.extra["observer_equal"] else f"recording the {side} side changed its output", stage="observer")
        whole = whole_rows(ref, cand)
        for call in extra["outputs"]:
            for name in extra["outputs"][call]:
                result.add(call_row(call, name, ref, cand, whole))
        surplus = [n for names in cand.header.extra["outputs"].values() for n in names if f"out/{n}" not in ref]
        result.add(missing(name, Reason.EXTRA, "the reference makes no such call") for name in surplus)
        result.add(decoded_rows(ref, cand))
        for path in extra["uncalled"]:
            if not ref.header.flags["auxiliary"] and path.startswith(("aux_fpn", "aux_head")):
                continue
            result.skip(path, "this module was never called")
        if not ref.header.flags["auxiliary"]:
            result.leave_out("auxiliary branch", "the weights hold no auxiliary branch; inference does not run it")
    result.parts = {
        "input": {"shape": list(ref.shape("input")), "source": input_name}, "stages": extra["stages"],
        "floors": extra.get("circumstances", {}), "accuracy": accuracy(result.rows()), "leaves": sum(extra["leaves"].values()), "peak_memory_mb": {"pytorch": ref.header.peak_memory_mb, "jittor": cand.header.peak_memory_mb},
    }
    divergence = locate.first_divergence(result.rows()) if not result.objections else None
    result.parts.update(first_divergence=vars(divergence) if divergence else None, repro=layers_repro.place(divergence))
    return result, divergence


def accuracy(rows: list[TensorResult]) -> dict[str, Any]:
    """How many tensors each side computes clearly less accurately, by float64, and where the port is worst against the reference."""
    judged = [row for row in rows if row.less_accurate]
    worst = max((row for row in judged if row.less_accurate == "candidate"), key=lambda row: ratio(row), default=None)
    in_float64 = [row.float64_rel_l2 for row in rows if row.float64_rel_l2 is not None]
    return {**{side: sum(row.less_accurate == side for row in judged) for side in ("reference", "candidate", "neither")},
            "worst": {"name": worst.name_ref, "reference": worst.err_ref_fp64, "candidate": worst.err_cand_fp64} if worst else None,
            "apart_in_float64": max(in_float64) if in_float64 else None}


def ratio(row: TensorResult) -> float:
    return row.err_cand_fp64 / row.err_ref_fp64 if row.err_ref_fp64 else float("inf")


def with_float64(row: TensorResult, apart: float | None) -> TensorResult:
    """The row with both sides' distance in float64, which tells another formula from rounding."""
    if apart is None:
        return row
    row = replace(row, float64_rel_l2=apart)
    if not row.failed or row.own_rel_l2 is None:
        return row
    same = apart <= SAME_FORMULA * row.own_rel_l2
    return replace(row, hint=f"{row.hint}; in float64 the sides lie {apart:.2g} apart (relative L2): "
                             + ("the formula is the same, and float32 makes the difference" if same else "another formula, not rounding"))


def write_repro(folder: Path, result: Result, divergence: locate.Divergence | None, given: dict[str, dict[str, Any]], *, verbosity: int = 0) -> Path | None:
    """The folder that reproduces the first divergence, beside the result; None where no layer is at fault. Each side runs once more, for it."""
    row = result.row(divergence.name) if divergence else None
    ask = functools.partial(backward.ask_side, given, folder, verbosity)
    return layers_repro.write(folder, divergence, row, Path(given["pytorch"]["config"]), ask)


def whole_rows(ref: Bundle, cand: Bundle) -> dict[str, TensorResult]:
    """Row of every output of the two whole runs, by name."""
    floors, rows = ref.header.extra["floors_whole"], {}
    for names in ref.header.extra["outputs"].values():
        for name in names:
            if f"out/{name}" in cand:
                rows[name] = compare_tensors(name, ref[f"out/{name}"], cand[f"out/{name}"], tolerance=tolerance(floors[name]),
                                             ref64=ref[f"run64/{name}"] if f"run64/{name}" in ref else None)
    return rows


def call_row(call: str, name: str, ref: Bundle, cand: Bundle, whole: dict[str, TensorResult]) -> TensorResult:
    """One call's output: judged by its own error, with the whole run's beside it; a whole stage by the whole run alone."""
    if call not in ref.header.extra["refed"]:
        return whole.get(name) or missing(name, Reason.MISSING, "the candidate makes no such call")
    if f"own/{name}" not in cand or f"out/{name}" not in cand:
        return missing(name, Reason.MISSING, "the candidate makes no such call")
    extra = ref.header.extra
    own = compare_tensors(name, ref[f"out/{name}"], cand[f"own/{name}"], ref64=ref[f"own64/{name}"], tolerance=tolerance(extra["floors_own"][name]))
    row = locate.combine(own, whole[name], module_type=extra["types"][call], entering=cand.header.extra.get("entering", {}).get(call))
    return with_float64(row, (cand.header.extra.get("float64") or {}).get(name))


def decoded_rows(ref: Bundle, cand: Bundle) -> list[TensorResult]:
    """Raw output, boxes and scores of the ordinary, untapped pass. The raw output's error against float64 may be twice the reference's."""
    rows = []
    for name, floor in DECODED.items():
        bound = tolerance(ref.header.extra["floors_whole"][floor], FLOAT64_RATIO)
        rows.append(compare_tensors(name, ref[name], cand[name], ref64=ref[f"run64/{floor}"], tolerance=bound, stage="decode"))
    return rows


def tolerance(document: dict[str, Any], float64_ratio: float | None = None) -> Tolerance:
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
    return tolerance_from_floor(Floor(**frozen), float64_ratio=float64_ratio)


def missing(name: str, reason: Reason, hint: str) -> TensorResult:
    return TensorResult(name, name, Verdict.FAIL, reason, Gate.KEYS, hint=hint)


def accuracy_text(found: dict[str, Any]) -> str:
    """Which side is the less accurate, in one line."""
    text = f"against float64: the port is the less accurate side of {found['candidate']} tensors, the reference of {found['reference']}, neither of {found['neither']}"
    if found["worst"]:
        text += f"; worst {found['worst']['name']} ({found['worst']['candidate']:.2g} to {found['worst']['reference']:.2g})"
    return text + (f"; in float64 both sides lie at most {found['apart_in_float64']:.2g} apart" if found["apart_in_float64"] is not None else "")


def show(divergence: locate.Divergence | None, repro: Path | None, where: str, verbosity: int) -> None:
    """The first divergence, possible causes, and where it can be seen again, for people."""
    if divergence is None or verbosity < 0:
        return
    print(f"first divergence{where}: {divergence.name} ({divergence.kind}): {divergence.hint or divergence.reason}; {divergence.note}")
    for cause in divergence.causes:
        print(f"  possible cause: {cause}")
    if repro:
        print(f"  to see it again: python {repro / 'run_pytorch.py'} and python {repro / 'run_jittor.py'}")


def weight_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pytorch-model", metavar="FILE", type=Path, help="weights of the reference (.pth .ckpt .npz .pkl); default: seeded weights")
    parser.add_argument("--jittor-model", metavar="FILE", type=Path, help="weights of the port; default: those of the reference")


def main(argv: list[str]) -> int:
    if pair.asked(argv):
        return pair_dumps.main(argv) if dumps.asked(argv) else pair.main(argv, "layers")
    if dumps.asked(argv):
        return dumps.main(argv)
    parser = argparse.ArgumentParser(prog="python -m alignment.layers", description=__doc__.split("\n\n")[0], parents=[parent_parser()],
                                     epilog="example: python -m alignment.layers --config configs/shapes.yml --output out")
    weight_arguments(parser)
    parser.add_argument("--test-images", metavar="DIR", type=Path, help="take the input from this folder; default: drawn shapes or seeded noise")
    parser.add_argument("--images", metavar="N", type=int, default=1, help="how many images (default: 1)")
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads of both sides")
    parser.add_argument("--backward", action="store_true", help="compare the gradients of every layer and parameter as well")
    parser.add_argument("--float64", metavar="PATTERN", nargs="?", const="*", help="the port computes these calls (default: all) in float64 too: tells another formula from rounding")
    parser.add_argument("--recommend-tolerances", action="store_true", help="write tolerances.json and tolerances.md: what these floors recommend, for every kind of module")
    parser.add_argument("--pair", metavar="FILE.py", help=pair.HELP)
    parser.add_argument("--ref", metavar="DIR", help="with --cand DIR, instead of --config: two folders of dumped tensors; with --pair: one such folder and a model (docs/pairs.md)")
    parser.add_argument("--cand", metavar="DIR", help="see --ref")
    upstream_repo.arguments(parser)
    args = parser.parse_args(argv)
    clone = upstream_repo.for_reference(args)
    folder = prepare_output(args.output)
    inputs.check_arguments(args)
    config = load_config(args.config)
    array, source = inputs.network_input(config, args.test_images, args.images, args.seed)
    input_file = inputs.write_input(folder, array)
    common = {"config": str(args.config), "device": args.device, "seed": args.seed, "threads": args.threads}
    models = {"pytorch": args.pytorch_model, "jittor": args.jittor_model or args.pytorch_model}
    given = {side: {**common, "weights": str(path) if path else None, **(clone if side == "pytorch" else {})} for side, path in models.items()}
    for side in child.MODULES:
        say(f"{side}: {source}", args.verbosity)
        child.run(side, tasks(side, folder, input_file, args.float64), given[side], folder, verbosity=args.verbosity)
    result, divergence = judge(folder, common, source)
    if clone:
        upstream.add_to(result, given["pytorch"], config, folder, clone, args.verbosity)
    if args.verbosity >= 0:
        print(accuracy_text(result.parts["accuracy"]))
    if args.recommend_tolerances:
        recommend.write(folder, result, args.verbosity)
    show(divergence, write_repro(folder, result, divergence, given, verbosity=args.verbosity), "", args.verbosity)
    if args.backward:
        parted, repro = backward.run(folder, given, input_file, result, verbosity=args.verbosity)
        show(parted, repro, " of the backward pass", args.verbosity)
    else:
        result.leave_out("backward pass", "not asked for: add --backward")
    return finish(result, folder, verbosity=args.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))
