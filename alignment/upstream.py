"""``python -m alignment.upstream``: `torch_ref` against the original, upstream's code in a clone of your own, tensor by tensor and bit for bit.

    git clone https://github.com/RangiLyu/nanodet && git -C nanodet checkout be9b4a9001d7f9b6fc89c2df31ae8d428e35b4f0
    python -m alignment.upstream --torch-repo nanodet --config configs/nanodet-plus-m_320.yml --pytorch-model A.pth --test-images DIR --output out

Same framework, same operators, one process: both module trees with every hyper-parameter, names and values of the state dict, every module's output, decoded
boxes and scores, the gradients of every layer and parameter, every picture's detections, and with the auxiliary branch, attached and detached, every loss
term, its gradients and the statistics. Nothing may differ in a single bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from alignment import inputs, upstream_repo
from alignment.bundle import array_sha256
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.compare import compare_bundles
from alignment.reasons import Reason
from alignment.result import Result, TensorResult, check_row
from alignment.runners import child
from alignment.structure_diff import diff_structure
from jt_nanodet.config import Config, load_config
from jt_nanodet.data.testset import open_test_set
from jt_nanodet.errors import UserError

#: What is compared, in order; the parts of names before the first slash.
GROUPS = {"structure": "modules, their types and hyper-parameters", "state": "state dict", "eval": "outputs in evaluation mode",
          "backward": "gradients of layers and parameters in training mode", "attached": "training, auxiliary branch attached", "detached": "training, auxiliary branch detached",
          "detections": "pictures, all their detections"}
IMAGES, BOXES = 2, 4


def write_batch(path: Path, config: Config, seed: int) -> Path:
    """Two inputs, with four drawn boxes each."""
    images, _ = inputs.network_input(config, None, IMAGES, seed)
    random, size = np.random.RandomState(seed), np.array(images.shape[:1:-1])
    lists: dict[str, np.ndarray] = {}
    for i in range(IMAGES):
        corner, extent = random.uniform(0, 0.6, (BOXES, 2)) * size, random.uniform(0.1, 0.4, (BOXES, 2)) * size
        lists[f"gt_bboxes/{i}"] = np.concatenate((corner, corner + extent), 1).astype(np.float32)
        lists[f"gt_labels/{i}"] = random.randint(0, config.model.arch.head.num_classes, BOXES)
        lists[f"gt_bboxes_ignore/{i}"] = np.zeros((0, 4), np.float32)
    np.savez(path, img=images, **lists)
    return path


def record(given: dict[str, Any], config: Config, folder: Path, verbosity: int = 0, pictures: dict[str, Any] | None = None) -> tuple[dict, dict, dict[str, Any], list]:
    """Tensors of upstream and of `torch_ref` by name, what the runner said, and both module trees. `given`: config, weights, seed, device and the clone;
    `pictures`: of which set detections are taken (images, annotations, batch_size, limit), None for no set."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        batch = write_batch(scratch / "batch.npz", config, given["seed"])
        said = child.run("pytorch", [{"kind": "upstream", "batch": str(batch), "output": str(scratch), "detect": pictures is not None, **(pictures or {})}], given, scratch, verbosity=verbosity)
        order = json.loads((scratch / "order.json").read_text(encoding="utf-8"))
        ref, cand = ({k: arrays[k] for k in order[side]} for side in ("nanodet", "torch_ref") for arrays in [load_file(scratch / f"{side}.safetensors")])
        trees = [json.loads((scratch / f"{side}.structure.json").read_text(encoding="utf-8"))["modules"] for side in ("nanodet", "torch_ref")]
        return ref, cand, {**said["tasks"][0], "versions": said["versions"]}, trees


def compare(given: dict[str, Any], config: Config, folder: Path, verbosity: int = 0, pictures: dict[str, Any] | None = None) -> tuple[list[TensorResult], dict[str, Any]]:
    """A row for every module and tensor, all exact, and what the runner said; arguments as those of `record`."""
    ref, cand, told, trees = record(given, config, folder, verbosity, pictures)
    rows = [row for group in GROUPS if any(k.startswith(f"{group}/") for k in ref) for row in compare_bundles(
        *({k: a for k, a in side.items() if k.startswith(f"{group}/")} for side in (ref, cand)), {}, exact=set(ref), stage=group)]
    return [*first_rows(trees, told), *rows], told


def first_rows(trees: list, told: dict[str, Any]) -> list[TensorResult]:
    """Both module trees, and the order of the state dict."""
    rows = [dataclasses.replace(row, name_ref=f"structure/{row.name_ref}", name_cand=f"structure/{row.name_cand}") for row in diff_structure(*trees).results()]
    return [*rows, check_row("state dict order", told["same_order"], Reason.STRUCTURE_DIFFERS, "" if told["same_order"] else "the names stand in another order", stage="state")]


def hashes(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    return {name: {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": array_sha256(array)} for name, array in arrays.items()}


def groups(rows: list[TensorResult]) -> list[dict[str, Any]]:
    """How many of each group are equal; the group of a row is its stage, or the first word after ``torch_ref/``."""
    def of(row: TensorResult) -> str:
        return row.stage if row.stage in GROUPS else row.name_ref.removeprefix("torch_ref/").split("/")[0]

    return [{"group": group, "what": words, "compared": len(mine), "equal": sum(not row.failed for row in mine)}
            for group, words in GROUPS.items() for mine in [[row for row in rows if of(row) == group]] if mine]


def in_groups(rows: list[TensorResult]) -> list[TensorResult]:
    """One row for each group that is equal, and every row that is not; for results that hold more than this comparison."""
    found = []
    for group, words in GROUPS.items():
        mine = [row for row in rows if row.stage == group]
        bad = [dataclasses.replace(row, name_ref=f"torch_ref/{row.name_ref}", stage="upstream") for row in mine if row.failed]
        if mine:
            found += bad or [check_row(f"torch_ref/{group}", True, Reason.OK, f"{words}: {len(mine)} tensors equal upstream's in every bit", stage="upstream")]
    return found


def add_to(result: Result, given: dict[str, Any], config: Config, folder: Path, clone: dict[str, str], verbosity: int = 0, pictures: dict[str, Any] | None = None) -> None:
    """The comparison as a part of another result (``structure``, ``layers`` and ``infer`` with --torch-repo)."""
    rows, told = compare(given, config, folder, verbosity, pictures)
    result.add(in_groups(rows))
    describe(result, told, clone)


def describe(result: Result, told: dict[str, Any], clone: dict[str, str]) -> None:
    result.parts["upstream"] = {"commit": clone["torch_repo_commit"], "state": clone["torch_repo_state"], "pinned": clone["torch_repo_commit"] == upstream_repo.COMMIT,
                                "stand_ins": told["stand_ins"]}
    for path in told["left_out"]:
        result.leave_out(path, "upstream's model holds this module, and its forward pass never calls it")
    if not told["auxiliary"]:
        result.leave_out("training of upstream", "the weights hold no auxiliary branch")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.upstream", description=__doc__.split("\n\n")[0], parents=[parent_parser()],
                                     epilog="example: python -m alignment.upstream --torch-repo nanodet --config configs/nanodet-plus-m_320.yml --output out")
    upstream_repo.arguments(parser, required=True)
    parser.add_argument("--pytorch-model", metavar="FILE", type=Path, help="weights (.pth .ckpt .npz .pkl); default: seeded weights")
    parser.add_argument("--test-images", metavar="DIR", type=Path, help="folder of pictures whose detections are compared as well")
    parser.add_argument("--annotations", metavar="FILE.json", type=Path, help="COCO annotations of these pictures: names the set's pictures and classes")
    args = parser.parse_args(argv)
    clone = upstream_repo.for_reference(args)
    inputs.check_arguments(args)
    config = load_config(args.config)
    pictures = {"images": str(args.test_images), "annotations": str(args.annotations) if args.annotations else None} if args.test_images else None
    if args.annotations and not pictures:
        raise UserError("--annotations belongs to pictures: add --test-images DIR")
    if pictures:
        open_test_set(config, pictures["images"], pictures["annotations"])  # what is wrong with it is said before anything runs
    folder = prepare_output(args.output)
    given = {"config": str(args.config), "device": args.device, "seed": args.seed, "weights": str(args.pytorch_model) if args.pytorch_model else None, **clone}
    say(f"upstream at {clone['torch_repo_commit'][:12]} ({clone['torch_repo_state']}) and torch_ref, on one input", args.verbosity)
    rows, told = compare(given, config, folder, args.verbosity, pictures)
    result = Result("upstream", device=args.device, seeds={"seed": args.seed}, versions=told["versions"], hashes={"config": config.sha256(), "weights": told["weights_sha256"]})
    result.add(rows)
    describe(result, told, clone)
    if not pictures:
        result.leave_out("detections", "no pictures were given: add --test-images DIR")
    result.parts["config"], result.parts["weights"] = args.config.name, args.pytorch_model.name if args.pytorch_model else f"seeded weights of seed {args.seed}"
    result.parts["groups"] = groups(rows)
    if args.verbosity >= 0:
        for one in result.parts["groups"]:
            print(f"{one['what']}: {one['equal']} of {one['compared']} equal in every bit")
    return finish(result, folder, verbosity=args.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))
