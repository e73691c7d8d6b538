"""``torch_ref`` against the original as a part of ``alignment.report --torch-repo``: kept as hashes, so that a report holds the evidence and not a second set of tensors.

``upstream/tensors.json`` has shape, type and SHA-256 of every tensor of both models and both module trees; the result follows from it alone, when the report is
made and when it is verified.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alignment import upstream
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult, write_json
from jt_nanodet.config import Config

PART, FILE = "upstream", "tensors.json"
#: What the runner says that the result needs.
TOLD = ("stand_ins", "left_out", "same_order", "auxiliary", "weights_sha256", "versions")


def made(report: Path) -> bool:
    """Whether the report has this part."""
    return (report / PART).is_dir()


def run(folder: Path, given: dict[str, Any], config: Config, clone: dict[str, str], pictures: dict[str, Any], verbosity: int = 0) -> Result:
    """Both models once, side by side in one process; writes the hashes and judges them."""
    folder.mkdir(parents=True, exist_ok=True)
    ref, cand, told, trees = upstream.record(given, config, folder, verbosity, pictures)
    write_json(folder / FILE, {"nanodet": upstream.hashes(ref), "torch_ref": upstream.hashes(cand), "trees": trees, "told": {key: told[key] for key in TOLD},
                               "clone": clone, "config_sha256": config.sha256()})
    return judge(folder, given)


def judge(folder: Path, common: dict[str, Any]) -> Result:
    """A row for every module and every tensor, from the file that `run` wrote."""
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    ref, cand, told = document["nanodet"], document["torch_ref"], document["told"]
    result = Result(PART, device=common["device"], seeds={"seed": common["seed"]}, versions=told["versions"],
                    hashes={"config": document["config_sha256"], "weights": told["weights_sha256"]})
    result.add(upstream.first_rows(document["trees"], told))
    result.add(row(name, ref.get(name), cand.get(name)) for name in dict.fromkeys((*ref, *cand)))
    upstream.describe(result, told, document["clone"])
    result.parts["groups"] = upstream.groups(result.rows())
    return result


def row(name: str, ref: dict[str, Any] | None, cand: dict[str, Any] | None) -> TensorResult:
    """Equal in every bit, or not; by how much is for ``alignment.upstream`` to say, which has the tensors."""
    one, same = ref or cand, ref == cand
    reason = Reason.OK if same else Reason.MISSING if cand is None else Reason.EXTRA if ref is None else Reason.SHAPE if ref["shape"] != cand["shape"] else Reason.NOT_EXACT
    return TensorResult(f"torch_ref/{name}", f"torch_ref/{name}" if cand else None, Verdict.PASS if same else Verdict.FAIL, reason, Gate.EXACT, stage=PART, shape=tuple(one["shape"]),
                        dtype=one["dtype"], hint="" if same else "torch_ref and upstream differ here: python -m alignment.upstream says by how much")
