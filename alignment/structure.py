"""``python -m alignment.structure``: both module trees side by side, with every hyper-parameter, shape and total.

    python -m alignment.structure --config configs/nanodet-plus-m_320.yml --output out
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from alignment import inputs, pair, upstream, upstream_repo
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.result import Result
from alignment.runners import child
from alignment.structure_diff import diff_structure
from jt_nanodet.config import load_config

FILE = "{side}.structure.json"


def task(side: str, folder: Path) -> dict[str, Any]:
    """What the runner of `side` is asked to do."""
    return {"kind": "structure", "output": str(folder / FILE.format(side=side))}


def judge(folder: Path, common: dict[str, Any]) -> tuple[Result, str]:
    """The result from both sides' files in `folder`, and the trees as text."""
    trees = {side: json.loads((folder / FILE.format(side=side)).read_text(encoding="utf-8")) for side in child.MODULES}
    diff = diff_structure(trees["pytorch"]["modules"], trees["jittor"]["modules"])
    result = Result("structure", device=common["device"], seeds={"seed": common["seed"]}, hashes={"config": trees["pytorch"]["config_sha256"]})
    result.add(diff.results())
    document = diff.to_json()
    totals = {name: {"parameters": diff.totals[f"parameters_{end}"], "flops": diff.totals[f"flops_{end}"]} for name, end in (("pytorch", "ref"), ("jittor", "cand"))}
    inference = inference_parameters(trees["pytorch"]["modules"])
    result.parts = {"structure": document, "rows": document["rows"], "totals": {**totals, "parameters_at_inference": inference}, "input": trees["pytorch"]["input"]}
    return result, diff.tree()


def inference_parameters(modules: list[dict[str, Any]]) -> int:
    """Trained parameters of the parts that inference runs."""
    used = [p for m in modules if not m["path"].startswith(("aux_fpn", "aux_head")) for p in m["params"] if p["trainable"]]
    total = 0
    for entry in used:
        size = 1
        for side in entry["shape"]:
            size *= side
        total += size
    return total


def main(argv: list[str]) -> int:
    if pair.asked(argv):
        return pair.main(argv, "structure")
    parser = argparse.ArgumentParser(prog="python -m alignment.structure", description=__doc__.split("\n\n")[0], parents=[parent_parser()],
                                     epilog="example: python -m alignment.structure --config configs/shapes.yml --output out")
    parser.add_argument("--pair", metavar="FILE.py", help=pair.HELP)
    upstream_repo.arguments(parser)
    args = parser.parse_args(argv)
    clone = upstream_repo.for_reference(args)
    folder = prepare_output(args.output)
    inputs.check_arguments(args)
    config = load_config(args.config)
    common = {"config": str(args.config), "device": args.device, "seed": args.seed}
    for side in child.MODULES:
        say(f"{side}: module tree", args.verbosity)
        child.run(side, [task(side, folder)], {**common, **(clone if side == "pytorch" else {})}, folder, verbosity=args.verbosity)
    result, tree = judge(folder, common)
    if clone:
        upstream.add_to(result, {**common, **clone}, config, folder, clone, args.verbosity)
    (folder / "structure.txt").write_text(tree + "\n", encoding="utf-8")
    if args.verbosity >= 0:
        print(tree)
    return finish(result, folder, verbosity=args.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))
