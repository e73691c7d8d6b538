"""``python -m weights_convert.sizes``: bytes of each model's weights as float32 and float16, and the mAP that each keeps on real pictures.

    python -m weights_convert.sizes --weights nanodet-plus-m_320=A.npz nanodet-plus-m_416=B.npz --images photos --annotations instances.json --output sizes.json

Sizes are of ``.pkl`` files with what inference needs. A model without weights is drawn from the seed, for its size alone. The mAP is the reference's
(``python -m torch_ref test``, a process of its own): what float16 costs is a matter of the numbers stored, not of the port.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jt_nanodet.checkpoint import read_weights, replacing, write_weights
from jt_nanodet.data.evaluator import CocoEvaluator
from jt_nanodet.errors import UserError, run_cli
from jt_nanodet.weight_rules import initial_weights
from weights_convert import convert, fit

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("nanodet-plus-m_320", "nanodet-plus-m_416", "nanodet-plus-m-1.5x_320", "nanodet-plus-m-1.5x_416")
#: What others say of float16, MB: the first README of this project, and upstream's README, where 1.8 is another model's number.
CLAIMS = {"this project's first README": 1.8, "upstream: NanoDet-m (not Plus)": 1.8, "NanoDet-Plus-m": 2.3, "NanoDet-Plus-m-1.5x": 4.7}
TIMEOUT_SECONDS = 7200


def files(name: str, given: str | None, folder: Path) -> dict[str, Path]:
    """The model's inference weights as two .pkl files, {"float32": path, "float16": path}, from a file or drawn."""
    config = ROOT / "configs" / f"{name}.yml"
    expected = fit.expected_state(config)
    paths = {kind: folder / f"{name}-{kind}.pkl" for kind in ("float32", "float16")}
    if given is None:
        shapes = {key: shape for key, (shape, _) in expected.keys.items() if not key.startswith(expected.training_only) and not key.endswith(fit.COUNTER)}
        write_weights(paths["float32"], initial_weights(shapes, 0))
    else:
        done = convert(given, folder / "whole.npz", config=config)
        kept = {key: value for key, value in done.weights.items() if not key.startswith(expected.training_only) and not key.endswith(fit.COUNTER)}
        write_weights(paths["float32"], {key: value.astype("float32") if value.dtype.kind == "f" else value for key, value in kept.items()})
    convert(paths["float32"], paths["float16"], fp16=True)
    return paths


def mean_precision(name: str, weights: Path, images: str, annotations: str) -> float:
    """mAP by COCO's rules of the reference with these weights."""
    command = [sys.executable, "-m", "torch_ref", "test", str(ROOT / "configs" / f"{name}.yml"), "--checkpoint", str(weights), "--images", images,
               "--annotations", annotations, "--save-results", str(weights.with_suffix(".json"))]
    print(f"{name}: {weights.stem} on {images}", file=sys.stderr, flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")
        raise UserError(f"the reference failed on {weights.name}: {said}")
    return CocoEvaluator(annotations).evaluate(json.loads(weights.with_suffix(".json").read_text()))["mAP"]


def table(rows: list[dict], pictures: int) -> dict:
    """The README's table: bytes in 10⁶, mAP where weights were given, and the claims as they were made."""
    def cells(row: dict) -> list:
        return [row["name"], row["source"], row["numbers"], *(round(row[kind]["bytes"] / 1e6, 3) for kind in ("float32", "float16")),
                *(round(row[kind]["mAP"], 5) if row[kind]["mAP"] is not None else None for kind in ("float32", "float16"))]

    claims = ", ".join(f"{who} {value}" for who, value in CLAIMS.items())
    on = f"mAP of the reference on {pictures} COCO pictures" if pictures else "no mAP was measured in this run"
    on_zh = f"mAP 为参考实现在 {pictures} 张 COCO 图片上的结果" if pictures else "本次运行没有测 mAP"
    return {
        "columns": ["model", "weights", "numbers", "float32, MB", "float16, MB", "mAP, float32", "mAP, float16"],
        "columns_zh": ["模型", "权重", "数值个数", "float32，MB", "float16，MB", "mAP，float32", "mAP，float16"],
        "rows": [cells(row) for row in rows],
        "note": f"MB = 10^6 bytes of a .pkl file; {on}; drawn weights have a size only. Claimed for float16, MB: {claims}",
        "note_zh": f"MB = 10^6 字节（.pkl 文件）；{on_zh}；抽取的权重只有大小。别处对 float16 的说法，MB：{claims}",
    }


def main(argv: list[str]) -> int:
    """Measure and write the result file; UserError for what cannot be read."""
    made = argparse.ArgumentParser(prog="python -m weights_convert.sizes", description=__doc__.split("\n\n")[0])
    made.add_argument("--weights", metavar="MODEL=FILE", nargs="*", default=[], help=f"released weights; models: {', '.join(MODELS)}")
    made.add_argument("--images", metavar="DIR", help="pictures to measure the mAP on; without them there are sizes only")
    made.add_argument("--annotations", metavar="FILE", help="their COCO annotations")
    made.add_argument("--output", metavar="FILE.json", required=True)
    args = made.parse_args(argv)
    given = dict(word.split("=", 1) for word in args.weights if "=" in word)
    odd = [word for word in args.weights if "=" not in word or word.split("=", 1)[0] not in MODELS]
    if odd:
        raise UserError(f"--weights {odd[0]} names no model; write MODEL=FILE with one of {', '.join(MODELS)}")
    if bool(args.images) != bool(args.annotations):
        raise UserError("pictures and annotations go together: give --images and --annotations")
    rows = []
    pictures = len(json.loads(Path(args.annotations).read_text())["images"]) if args.annotations else 0
    with tempfile.TemporaryDirectory() as scratch, replacing(args.output) as file:
        for name in MODELS:
            paths = files(name, given.get(name), Path(scratch))
            row = {"name": name, "source": "released" if name in given else "drawn", "numbers": sum(a.size for a in read_weights(paths["float32"]).values())}
            for kind, path in paths.items():
                measured = mean_precision(name, path, args.images, args.annotations) if name in given and args.images else None
                row[kind] = {"bytes": path.stat().st_size, "mAP": measured}
            rows.append(row)
            print(f"{name}: " + ", ".join(f"{kind} {row[kind]['bytes']:,} bytes, mAP {row[kind]['mAP']}" for kind in paths))
        document = {"schema_version": 1, "command": "python -m weights_convert.sizes", "measured": rows, "claims_mb": CLAIMS, "pictures": pictures,
                    "date": datetime.date.today().isoformat(), "tables": {"sizes": table(rows, pictures)}}
        file.write((json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
