"""``python -m jt_nanodet demo image|video|webcam``: detections on pictures, on a video file or on a camera.

    python -m jt_nanodet demo image --config configs/nanodet-plus-m_320.yml --model weights.pkl --path photos --save
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from jt_nanodet import runtime
from jt_nanodet.checkpoint import replacing, weights_sha256
from jt_nanodet.config import load_config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.batches import stack_images
from jt_nanodet.data.evaluator import detections_to_coco
from jt_nanodet.data.images import UnreadableImage, read_image
from jt_nanodet.data.progress import Progress
from jt_nanodet.data.transforms import preprocess_image
from jt_nanodet.demo import compare
from jt_nanodet.demo.draw import draw, side_by_side
from jt_nanodet.demo.output import PictureFolder, Records, video_writer
from jt_nanodet.demo.sources import Frames, find_pictures
from jt_nanodet.errors import UserError
from jt_nanodet.run.files import make_folder

#: As upstream's demo (`demo/demo.py`): what is worth drawing.
SCORE_THRESHOLD = 0.35
#: Pictures or frames that the reference gets in one go; on disk as PNG meanwhile.
CHUNK = 128

EXAMPLES = """examples:
  python -m jt_nanodet demo image --config C.yml --model W.pkl --path photos --save
  python -m jt_nanodet demo image --config C.yml --model W.pkl --path 'photos/*.jpg' more.png --csv found.csv
  python -m jt_nanodet demo image --config C.yml --model W.pkl --path photos --save --compare
  python -m jt_nanodet demo image --config configs/shapes.yml --model W.pkl --path shapes:4 --save
  python -m jt_nanodet demo video --config C.yml --model W.pkl --path in.mp4 --save --output out/demo
  python -m jt_nanodet demo webcam --config C.yml --model W.pkl --show
"""


class Detector:
    """The Jittor model behind one call: picture in, detections out."""

    def __init__(self, config, checkpoint: str, device: str, threshold: float):
        runtime.setup(device)
        from jt_nanodet.detector import build_model, load_state
        from jt_nanodet.tester import read_checkpoint

        self.config, self.threshold = config, threshold
        weights = read_checkpoint(checkpoint)
        self.sha256 = weights_sha256(weights)
        self.model = build_model(config.model.arch)
        load_state(self.model, weights, training_branch=False)
        self.names = list(config.class_names)

    def __call__(self, image: np.ndarray) -> list[dict]:
        """Detections of a BGR picture, best first: label, name, score, bbox [x, y, w, h] in its pixels."""
        from jt_nanodet.postprocess import multiclass_nms
        from jt_nanodet.tester import detect

        val = self.config.data.val
        pixels, matrix = preprocess_image(image, val.input_size, val.keep_ratio, val.pipeline.normalize)
        boxes, scores = detect(self.model, self.config.model.arch.head, stack_images([pixels]))
        dets, labels, _ = multiclass_nms(boxes[0], scores[0])
        info = {"id": 1, "height": image.shape[0], "width": image.shape[1]}
        return self.readable(detections_to_coco(dets, labels, info, matrix, range(1, len(self.names) + 1)))

    def readable(self, entries: list[dict]) -> list[dict]:
        """COCO entries of one picture with categories 1 … C, as the demo's own: named, above the threshold, best first."""
        rows = [{"label": e["category_id"] - 1, "name": self.names[e["category_id"] - 1], "score": e["score"], "bbox": list(e["bbox"])} for e in entries]
        return sorted((row for row in rows if row["score"] >= self.threshold), key=lambda row: -row["score"])


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    made = argparse.ArgumentParser(prog="python -m jt_nanodet demo", description="Detections on pictures, a video or a camera.", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("kind", choices=("image", "video", "webcam"))
    made.add_argument("--config", metavar="YAML", required=True)
    made.add_argument("--model", metavar="FILE", required=True, help="weights: .pkl or .npz (others: python -m weights_convert)")
    made.add_argument("--path", metavar="PATH", nargs="+", default=[], help="image: files, folders, quoted patterns, or shapes:N; video: one file")
    made.add_argument("--camera", metavar="N", type=int, default=0, help="webcam: number of the camera (default 0)")
    made.add_argument("--score-thr", metavar="S", type=float, default=SCORE_THRESHOLD, help=f"least score that is shown and written (default {SCORE_THRESHOLD})")
    made.add_argument("--save", action="store_true", help="write drawn pictures or video, detections.json and detections.csv into --output")
    made.add_argument("--output", metavar="DIR", default="demo", help="folder for --save (default demo)")
    made.add_argument("--json", metavar="FILE", help="write the detections here")
    made.add_argument("--csv", metavar="FILE", help="write the detections here, a row each")
    made.add_argument("--compare", action="store_true", help="PyTorch beside Jittor, differing boxes marked (image and video)")
    made.add_argument("--frames", metavar="N", type=int, help="video, webcam: stop after N frames")
    made.add_argument("--show", action="store_true", help="open a window; q ends it")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return made


def check(args: argparse.Namespace) -> None:
    """Refuse, before anything is loaded, options that do not go together."""
    help_text = 'type "python -m jt_nanodet demo --help"'
    if args.kind == "webcam" and args.path:
        raise UserError(f"a camera has a number and no --path: use --camera N, or {help_text}")
    if args.kind == "image" and not args.path:
        raise UserError(f"demo image needs --path with files, folders or patterns; {help_text}")
    if args.kind == "video" and len(args.path) != 1:
        raise UserError(f"demo video takes one file with --path and got {len(args.path)}; {help_text}")
    if args.kind == "webcam" and args.compare:
        raise UserError("--compare needs pictures that both sides can read: record with --save, then use demo video --compare on the file")
    if not 0 <= args.score_thr <= 1:
        raise UserError(f"--score-thr {args.score_thr} is no score; give a number from 0 to 1")
    if args.frames is not None and args.frames < 1:
        raise UserError(f"--frames {args.frames} would show nothing; give 1 or more")
    if args.kind == "webcam" and not (args.save or args.show or args.json or args.csv):
        raise UserError("the camera's detections would go nowhere; add --show, --save, --json FILE or --csv FILE")


def main(argv: list[str]) -> int:
    """Run the demo that ``argv`` asks for and return 0; UserError for what the user can mend."""
    args = parser().parse_args(argv)
    check(args)
    config = load_config(args.config)
    with contextlib.ExitStack() as stack:
        # sources and places to write are opened first: what is wrong with them must not show after the model has loaded
        args.path = [path for word in args.path for path in drawn(word, config, stack)] if args.kind == "image" else args.path
        source = find_pictures(args.path) if args.kind == "image" else Frames(args.path[0] if args.kind == "video" else args.camera)
        if isinstance(source, Frames):
            stack.callback(source.close)
        if args.save:
            make_folder(args.output)
            refuse_to_replace(source, args)
            args.json, args.csv = (args.json or str(Path(args.output) / "detections.json"), args.csv or str(Path(args.output) / "detections.csv"))
        window = None
        if args.show:
            from jt_nanodet.demo.window import Window

            window = Window(f"demo {args.kind}")
            stack.callback(window.close)
        detector = Detector(config, args.model, args.device, args.score_thr)
        header = {"schema_version": 1, "config": args.config, "weights_sha256": detector.sha256, "score_threshold": args.score_thr, "classes": detector.names}
        records = Records(stack, header, args.json, args.csv)
        run = run_pictures if args.kind == "image" else run_frames
        skipped = run(source, args, detector, records, window, stack)
        records.close(skipped)
    noun = "frames" if args.kind != "image" else "pictures"
    left = f", {len(skipped)} not readable" if skipped else ""
    print(f"{records.found} detections of score {args.score_thr:g} or more on {records.count} {noun}{left}")
    for place in [args.output] if args.save else []:
        print(f"written to {place}")
    return 0


def drawn(word: str, config, stack: contextlib.ExitStack) -> list[str]:
    """``shapes:N``: N pictures that the configuration's own validation set draws, in a temporary folder; any other word is itself."""
    if not word.startswith("shapes:"):
        return [word]
    count = word.removeprefix("shapes:")
    if config.data.val.name != "ShapesDataset" or not count.isdigit() or int(count) < 1:
        raise UserError(f"{word}: only a configuration with a ShapesDataset draws pictures, N of them for shapes:N; use configs/shapes.yml, or give files")
    dataset = build_dataset(config.data.val, "test")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nanodet-shapes-"))
    paths = [os.path.join(folder, f"shapes-{n:03d}.png") for n in range(min(int(count), len(dataset)))]
    for n, path in enumerate(paths):
        with replacing(path) as file:
            file.write(cv2.imencode(".png", dataset.load(n))[1].tobytes())
    return paths


def refuse_to_replace(source, args) -> None:
    """UserError where a drawn picture or video would take the place of its own source."""
    if args.kind == "image":
        own = next((path for path in source if os.path.realpath(os.path.dirname(path)) == os.path.realpath(args.output)), None)
    else:
        target = video_target(source, args)
        own = target if args.kind == "video" and target.exists() and target.samefile(source.source) else None
    if own:
        raise UserError(f"the drawn copy would take the place of {own} itself; choose another folder with --output")


def video_target(frames: Frames, args) -> Path:
    """Where the drawn video goes."""
    return Path(args.output) / (Path(frames.source).stem + ".mp4" if args.kind == "video" else f"camera-{frames.source}.mp4")


def run_pictures(paths: list[str], args, detector: Detector, records: Records, window, _stack) -> list[dict]:
    """Every picture; returns the unreadable ones. UserError when none could be read."""
    folder, skipped, progress = PictureFolder(args.output) if args.save else None, [], Progress(len(paths), "pictures")
    for at in range(0, len(paths), CHUNK):
        loaded = []
        for path in paths[at : at + CHUNK]:
            try:
                read_image(path)
                loaded.append(path)
            except UnreadableImage as error:
                skipped.append({"source": path, "reason": error.reason})
                print(f"left out: {error}", file=sys.stderr)
        others = compare.reference_detections(loaded, args.config, args.model, args.device) if args.compare and loaded else [None] * len(loaded)
        for path, other in zip(loaded, others):
            image = read_image(path)
            began = time.perf_counter()
            found = detector(image)
            records.add(path, None, image.shape, time.perf_counter() - began, found)
            picture, numbers = render(image, found, other, detector)
            print(f"{path}: {summary(found)}" + (f"; PyTorch and Jittor: {compare.foot(numbers)}" if numbers else ""))
            if folder:
                folder.write(path, picture)
            progress.step(records.count)
            if window and not window.show(picture, wait=True):
                return skipped
    if not records.count:
        raise UserError(f"none of the {len(paths)} pictures could be read (first {skipped[0]['source']}: {skipped[0]['reason']}); give whole pictures")
    return skipped


def run_frames(frames: Frames, args, detector: Detector, records: Records, window, stack) -> list[dict]:
    """Every frame of a video or camera; returns an entry when a file ends before it says."""
    name = str(frames.source) if args.kind == "video" else f"camera {frames.source}"
    total = min(frames.announced or args.frames or 0, args.frames or frames.announced)
    progress, writer, began = Progress(total, "frames"), None, time.monotonic()
    stream, differing = itertools.islice(frames, args.frames), 0
    try:
        while chunk := list(itertools.islice(stream, CHUNK if args.compare else 1)):
            others = compare.reference_detections(chunk, args.config, args.model, args.device) if args.compare else [None]
            for image, other in zip(chunk, others):
                started = time.perf_counter()
                found = detector(image)
                records.add(name, records.count, image.shape, time.perf_counter() - started, found)
                picture, numbers = render(image, found, other, detector)
                differing += bool(numbers and numbers["differing"])
                if args.save and writer is None:
                    size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)  # the coder wants even sides
                    writer = stack.enter_context(video_writer(video_target(frames, args), frames.fps, size))
                if writer is not None:
                    writer.write(np.ascontiguousarray(picture[: size[1], : size[0]]))
                progress.step(records.count)
                if window and not window.show(picture, wait=False):
                    raise KeyboardInterrupt
    except KeyboardInterrupt:  # a camera has no end of its own: what was recorded is kept
        print(f"stopped after {records.count} frames", file=sys.stderr)
    print(f"{records.count / max(time.monotonic() - began, 1e-9):.1f} frames a second, all work included")
    if args.compare:
        print(f"{differing} of {records.count} frames have boxes that differ")
    if frames.announced and not args.frames and records.count < frames.announced * 0.98 - 1:
        reason = f"announces {frames.announced} frames and {records.count} could be read"
        print(f"{name} {reason}", file=sys.stderr)
        return [{"source": name, "reason": reason}]
    return []


def render(image: np.ndarray, found: list[dict], other: list[dict] | None, detector: Detector) -> tuple[np.ndarray, dict | None]:
    """The drawn picture; with the reference's entries both sides beside each other, and the numbers of their comparison."""
    if other is None:
        return draw(image, found), None
    reference = detector.readable(other)
    theirs, ours, numbers = compare.differences(reference, found)
    pictures = [draw(image, reference, theirs), draw(image, found, ours)]
    return side_by_side(pictures, (f"PyTorch: {len(reference)} boxes", f"Jittor: {len(found)} boxes"), compare.foot(numbers)), numbers


def summary(found: list[dict]) -> str:
    """The classes found, most frequent first."""
    counts: dict[str, int] = {}
    for one in found:
        counts[one["name"]] = counts.get(one["name"], 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {name}" for name, number in ordered) or "nothing found"
