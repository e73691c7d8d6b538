"""``python -m alignment.weights``: are both models, once loaded, made of the same bits?

Compared are the state dicts of the two loaded models, entry by entry, by hash: what a converter or a loader changed on the way shows here.

    python -m alignment.weights --config C.yml --pytorch-model A.pth --jittor-model B.pkl --output out
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from alignment import inputs
from alignment.cli import finish, parent_parser, prepare_output, run_cli
from alignment.layers import weight_arguments
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners import child
from jt_nanodet.config import load_config

FILE = "{side}.weights.json"
IDLE = ("aux_fpn.", "aux_head.")


def task(side: str, folder: Path) -> dict[str, Any]:
    """What the runner of `side` is asked to do."""
    return {"kind": "weights", "output": str(folder / FILE.format(side=side))}


def judge(folder: Path, common: dict[str, Any]) -> Result:
    """One row for every entry of either side, in upstream's order."""
    ref, cand = (json.loads((folder / FILE.format(side=side)).read_text(encoding="utf-8")) for side in child.MODULES)
    result = Result("weights", device=common["device"], seeds={"seed": common["seed"]}, hashes={
        "config": ref["config_sha256"], "weights_pytorch": ref["weights_sha256"], "weights_jittor": cand["weights_sha256"]})
    result.parts = {"sources": {"pytorch": ref["source"], "jittor": cand["source"]}}
    used = {}
    for side, document in (("pytorch", ref), ("jittor", cand)):
        used[side] = {n: e for n, e in document["entries"].items() if document["auxiliary"] or not n.startswith(IDLE)}
    if not (ref["auxiliary"] or cand["auxiliary"]):
        result.leave_out("auxiliary branch", "the weights hold no auxiliary branch; inference does not run it")
    for name in dict.fromkeys((*used["pytorch"], *used["jittor"])):
        result.add(row(name, used["pytorch"].get(name), used["jittor"].get(name)))
    if list(used["pytorch"]) != list(used["jittor"]) and set(used["pytorch"]) == set(used["jittor"]):
        result.check("order of entries", False, Reason.STRUCTURE_DIFFERS, "both sides have the same entries in another order", stage="weights")
    return result


def row(name: str, ref: dict[str, Any] | None, cand: dict[str, Any] | None) -> TensorResult:
    def made(verdict: Verdict, reason: Reason, gate: Gate, hint: str = "") -> TensorResult:
        one = ref or cand
        return TensorResult(name, name if cand else None, verdict, reason, gate, stage="weights", shape=tuple(one["shape"]), dtype=one["dtype"], hint=hint)

    if cand is None:
        return made(Verdict.FAIL, Reason.MISSING, Gate.KEYS, "the candidate lacks this entry")
    if ref is None:
        return made(Verdict.FAIL, Reason.EXTRA, Gate.KEYS, "the reference lacks this entry")
    if ref["dtype"] != cand["dtype"]:
        return made(Verdict.FAIL, Reason.DTYPE, Gate.DTYPE, f"{ref['dtype']} and {cand['dtype']}")
    if ref["shape"] != cand["shape"]:
        return made(Verdict.FAIL, Reason.SHAPE, Gate.SHAPE, f"{ref['shape']} and {cand['shape']}")
    if ref["sha256"] != cand["sha256"]:
        return made(Verdict.FAIL, Reason.NOT_EXACT, Gate.EXACT, "weights must be equal in every bit: convert them again with python -m weights_convert")
    return made(Verdict.PASS, Reason.OK, Gate.EXACT)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.weights", description=__doc__.split("\n\n")[0], parents=[parent_parser()])
    weight_arguments(parser)
    args = parser.parse_args(argv)
    folder = prepare_output(args.output)
    inputs.check_arguments(args)
    load_config(args.config)
    common = {"config": str(args.config), "device": args.device, "seed": args.seed}
    models = {"pytorch": args.pytorch_model, "jittor": args.jittor_model or args.pytorch_model}
    for side in child.MODULES:
        given = {**common, "weights": str(models[side]) if models[side] else None}
        child.run(side, [task(side, folder)], given, folder, verbosity=args.verbosity)
    return finish(judge(folder, common), folder, verbosity=args.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))
