"""``python -m reports.readme_pictures``: the READMEs' training curves, drawn from reports/results/training_curves.json, and their detections.

    python -m reports.readme_pictures --pytorch-run out/run-pytorch --jittor-run out/run-jittor    # keep the curves of two runs, then draw
    python -m reports.readme_pictures                                                               # draw again from what is kept
    python -m reports.readme_pictures --demo out/shapes                                             # one sheet of what `demo image --path shapes:N --save` drew

Pictures: docs/pictures/loss.svg and, where both runs validated, docs/pictures/map.svg; docs/pictures/detections.jpg. The numbers come from the runs' log.jsonl
and are thinned by means. The sheet takes only pictures that the project draws itself, whose licence is its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jt_nanodet.checkpoint import replacing
from jt_nanodet.errors import UserError, run_cli
from reports import save_text

ROOT = Path(__file__).resolve().parents[1]
RESULT, PICTURES = Path("reports/results/training_curves.json"), Path("docs/pictures")
SIDES = {"pytorch": ("PyTorch", "#1f5fa8", "-"), "jittor": ("Jittor", "#d1600a", "--")}
#: Points kept of one curve: a README's picture has no more columns.
POINTS = 200


def read_run(folder: Path) -> dict:
    """``loss``: [[step, mean]], ``mAP``: [[epoch, value]] and the header's facts of a run's log.jsonl. UserError where it is no finished log."""
    path = folder / "log.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"cannot read '{path}' ({error.strerror}); give the folder of a training run") from None
    except ValueError:
        raise UserError(f"'{path}' has a line that is no JSON; finish the run with --resume first") from None
    train = {row["step"]: row["loss"] for row in rows if row.get("type") == "train" and isinstance(row.get("loss"), float)}
    val = {row["epoch"]: row["mAP"] for row in rows if row.get("type") == "val" and isinstance(row.get("mAP"), float)}
    if not train:
        raise UserError(f"'{path}' holds no training step with a loss; give the folder of a run that has trained")
    header = next((row for row in rows if row.get("type") == "header"), {})
    kept = {key: header[key] for key in ("side", "config", "config_sha256", "seed", "device", "precision", "total_epochs") if key in header}
    return {**kept, "steps": len(train), "loss": thin(sorted(train.items())), "mAP": sorted(map(list, val.items()))}


def thin(points: list[tuple[float, float]]) -> list[list[float]]:
    """At most POINTS [x, y], each the mean of a stretch."""
    width = -(-len(points) // POINTS)
    parts = [points[at : at + width] for at in range(0, len(points), width)]
    return [[sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)] for part in parts]


def draw(document: dict, folder: Path) -> list[Path]:
    """Write the pictures; the paths written."""
    made = []
    for key, name, across, up in (("loss", "loss.svg", "step", "loss"), ("mAP", "map.svg", "epoch", "mAP")):
        curves = {side: document["runs"][side][key] for side in SIDES}
        if all(curves.values()):
            folder.mkdir(parents=True, exist_ok=True)
            save_text(folder / name, _svg(curves, across, up))
            made.append(folder / name)
    return made


def _svg(curves: dict[str, list], across: str, up: str) -> str:
    import io

    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": up, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for side, points in curves.items():
            name, colour, style = SIDES[side]
            axes.plot([x for x, _ in points], [y for _, y in points], style, color=colour, label=name, linewidth=1.4, marker="o" if len(points) < 30 else None, markersize=3)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(alpha=0.3)
        axes.legend()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def sheet(folder: Path, target: Path) -> None:
    """The drawn pictures of a demo below each other as one JPEG. UserError where the folder holds none, or none of the project's own."""
    import cv2
    import numpy as np

    paths = sorted(folder.glob("shapes-*.png"))
    pictures = [picture for picture in (cv2.imread(str(path)) for path in paths) if picture is not None]
    if not pictures or len(pictures) < len(paths):
        raise UserError(f"'{folder}' holds no whole shapes-*.png; draw them with python -m jt_nanodet demo image --path shapes:4 --save --output {folder}")
    width = max(picture.shape[1] for picture in pictures)
    padded = [cv2.copyMakeBorder(picture, 0, 4, 0, width - picture.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255)) for picture in pictures]
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(cv2.imencode(".jpg", np.vstack(padded), [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


def main(argv: list[str]) -> int:
    """Keep and draw, or draw; UserError for what cannot be read."""
    made = argparse.ArgumentParser(prog="python -m reports.readme_pictures", description=__doc__.split("\n\n")[0])
    for side in SIDES:
        made.add_argument(f"--{side}-run", metavar="DIR", type=Path, help=f"folder of a training run of {SIDES[side][0]}")
    made.add_argument("--demo", metavar="DIR", type=Path, help="output folder of a demo on shapes:N: make the sheet of detections from it, and nothing else")
    made.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="the checkout (default: this one)")
    args = made.parse_args(argv)
    runs = {side: getattr(args, f"{side}_run") for side in SIDES}
    if any(runs.values()) and not all(runs.values()):
        raise UserError("both sides belong into one picture: give --pytorch-run and --jittor-run")
    if args.demo:
        if any(runs.values()):
            raise UserError("give --demo in a call of its own: it draws no curves")
        sheet(args.demo, args.root / PICTURES / "detections.jpg")
        print(f"drew {args.root / PICTURES / 'detections.jpg'}")
        return 0
    result = args.root / RESULT
    if all(runs.values()):
        document = {"schema_version": 1, "command": "python -m reports.readme_pictures", "runs": {side: read_run(folder) for side, folder in runs.items()}}
        result.parent.mkdir(parents=True, exist_ok=True)
        save_text(result, json.dumps(document, indent=1) + "\n")
        print(f"kept {result}")
    elif not result.is_file():
        raise UserError(f"{result} is not there; train both sides, then give --pytorch-run and --jittor-run")
    document = json.loads(result.read_text(encoding="utf-8"))
    for path in draw(document, args.root / PICTURES):
        print(f"drew {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
