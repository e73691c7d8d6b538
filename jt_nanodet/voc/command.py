"""``python -m jt_nanodet voc``: Pascal VOC from its archives to COCO's JSON, checked; ``voc mini`` and ``voc score``.

    python -m jt_nanodet voc --data-dir data --download --convert --verify
    python -m jt_nanodet voc mini --src-dir data --dst-dir data/mini --train-samples 100 --val-samples 50
    python -m jt_nanodet voc score --annotations data/annotations/voc_val.json --detections detections.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jt_nanodet.checkpoint import replacing
from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.data.cocofile import as_coco, read_coco
from jt_nanodet.data.download import TIMEOUT, Asset, fetch
from jt_nanodet.data.evaluator import CocoEvaluator
from jt_nanodet.data.voc_metric import RULES, voc_metrics
from jt_nanodet.errors import UserError
from jt_nanodet.voc import CLASSES, archives, convert, mini, verify
from jt_nanodet.voc.devkit import default_splits, find_years, named_splits

EXIT_FAULTS = 1
EXAMPLES = """examples:
  python -m jt_nanodet voc --data-dir data --download --convert --verify
  python -m jt_nanodet voc --data-dir data --download --mirror file:///mnt/archives
  python -m jt_nanodet voc --data-dir data --download --archive mine.tar --convert
  python -m jt_nanodet voc mini --help
  python -m jt_nanodet voc score --help
"""


def main(argv: list[str]) -> int:
    """Run ``voc``, ``voc mini`` or ``voc score``; 0, or 1 when --verify found a fault. UserError for what the user can mend."""
    if argv[:1] == ["mini"]:
        return make_mini(argv[1:])
    if argv[:1] == ["score"]:
        return score(argv[1:])
    args = parser().parse_args(argv)
    if not (args.download or args.convert or args.verify):
        raise UserError('nothing to do: add --download, --convert or --verify, or type "python -m jt_nanodet voc --help"')
    root = Path(args.data_dir)
    if args.download:
        download(args, root)
    if not (args.convert or args.verify):
        return 0
    years = find_years(root)
    splits = default_splits(years) if not (args.train and args.val) else {}
    splits |= {side: named_splits(years, words) for side, words in (("train", args.train), ("val", args.val)) if words}
    code = 0
    if args.verify:  # before the conversion, which stops at the first fault
        report = verify.verify(splits)
        place = root / "annotations" / "voc_verify.json"
        convert.write(report, place)
        show(report, place)
        code = EXIT_FAULTS if report["faults"] else 0
    if args.convert and not code:
        base = years[0].folder.parent
        for side, lists in splits.items():
            said = " + ".join(f"{year.name} {split}" for year, split in lists)
            document, counts = convert.convert(lists, base, said)
            place = root / "annotations" / convert.FILES[side]
            convert.write(document, place)
            print(f"wrote {place}: {said}, {counts['images']} pictures, {counts['objects']} objects, {counts['difficult']} of them difficult, {counts['clipped']} clipped")
        print(f"pictures are named from {base}: use it as the folder of images")
    elif args.convert:
        print("nothing was converted: mend the faults first", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Options of ``voc`` itself."""
    made = argparse.ArgumentParser(prog="python -m jt_nanodet voc", description="Pascal VOC 2007 and 2012: fetch, unpack, convert to COCO's JSON, verify.",
                                   epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data-dir", metavar="DIR", default="data", help="where VOCdevkit and annotations go (default data)")
    made.add_argument("--download", action="store_true", help="fetch and unpack; what is there already is kept")
    made.add_argument("--convert", action="store_true", help="write annotations/voc_train.json and voc_val.json")
    made.add_argument("--verify", action="store_true", help="look at every picture and annotation; exit code 1 when one is faulty")
    made.add_argument("--only", nargs="+", choices=sorted(archives.ARCHIVES), metavar="NAME", help=f"of the archives only these: {', '.join(archives.ARCHIVES)}")
    made.add_argument("--mirror", metavar="ADDRESS", help="folder with the official archives, http://, file:// or a path; checked like the official ones")
    made.add_argument("--archive", nargs="+", metavar="ADDRESS", help="your own archives in VOC's layout in place of the official ones; no checksum is known for them")
    made.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help=f"seconds without a byte until a connection counts as dead (default {TIMEOUT:g})")
    made.add_argument("--train", nargs="+", metavar="YEAR:LIST", help="lists of the train side, such as 2007:trainval 2012:trainval")
    made.add_argument("--val", nargs="+", metavar="YEAR:LIST", help="lists of the val side, such as 2007:test")
    return made


def download(args: argparse.Namespace, root: Path) -> None:
    """Fetch the archives that were asked for and unpack each as soon as it is whole."""
    if args.archive and (args.mirror or args.only):
        raise UserError("--archive names files of your own, --mirror and --only the official ones: use one of them")
    if args.archive:
        assets = [Asset(address.rstrip("/").rpartition("/")[2], (address,)) for address in args.archive]
    else:
        assets = [archives.ARCHIVES[name] for name in args.only or archives.ARCHIVES]
    for asset in assets:
        path = fetch(asset, root / "archives", mirror=args.mirror, timeout=args.timeout, say=lambda text: print(text, file=sys.stderr))
        print(f"{path}: " + ("whole, SHA-256 as published" if asset.sha256 else "there; no checksum is known for it"))
        written = archives.unpack(path, root)
        print(f"unpacked {written} files of {asset.name} into {root / 'VOCdevkit'}" if written else f"{asset.name} is unpacked already")


def show(report: dict, place: Path) -> None:
    """The report for people: the table, then every kind of fault with its first examples."""
    print(verify.table(report))
    for kind, number in report["counts"].items():
        print(f"{kind}: {number} ({verify.KINDS[kind]})")
        for fault in [f for f in report["faults"] if f["kind"] == kind][:5]:
            print(f"  {fault['what']}")
    images = sum(total.get("images", 0) for total in report["totals"].values())
    lacking = {side: [name for name in CLASSES if not report["classes"][side][name].get("objects")] for side in report["classes"]}
    for side, names in lacking.items():
        if names:
            print(f"classes without an object in {side}: {', '.join(names)}")
    print(f"{len(report['faults'])} faults in {images} pictures; the whole list: {place}")


def make_mini(argv: list[str]) -> int:
    """``voc mini``."""
    made = argparse.ArgumentParser(prog="python -m jt_nanodet voc mini", description="A small VOC out of a large one, with every class where possible.")
    made.add_argument("--src-dir", metavar="DIR", required=True, help="folder with VOCdevkit, or VOCdevkit or one year of it")
    made.add_argument("--dst-dir", metavar="DIR", required=True, help="new folder; gets VOCdevkit and annotations")
    made.add_argument("--train-samples", metavar="N", type=int, default=100)
    made.add_argument("--val-samples", metavar="N", type=int, default=50)
    made.add_argument("--seed", metavar="N", type=int, default=0)
    args = made.parse_args(argv)
    counts = {"train": args.train_samples, "val": args.val_samples}
    if min(counts.values()) < 1:
        raise UserError("a side without a picture is of no use; give --train-samples and --val-samples of 1 or more")
    target = Path(args.dst_dir)
    report = mini.make(default_splits(find_years(Path(args.src_dir))), target, counts, args.seed)
    splits = {side: [(year, side) for year in find_years(target) if year.has(side)] for side in counts}
    for side, lists in splits.items():
        document, _ = convert.convert(lists, target / "VOCdevkit", f"mini, seed {args.seed}")
        convert.write(document, target / "annotations" / convert.FILES[side])
        lacking = f"; without {', '.join(report[side]['lacking'])}" if report[side]["lacking"] else ""
        print(f"{side}: {len(report[side]['names'])} pictures, {len(report[side]['classes'])} of {len(CLASSES)} classes{lacking}")
    print(f"written to {target}: VOCdevkit, annotations/voc_train.json, annotations/voc_val.json")
    return 0


def score(argv: list[str]) -> int:
    """``voc score``: COCO's numbers and VOC's, with difficult objects ignored in each."""
    made = argparse.ArgumentParser(prog="python -m jt_nanodet voc score", description="mAP by COCO's rules and by those of VOC2007 and VOC2012.")
    made.add_argument("--annotations", metavar="FILE", required=True, help="a file of --convert")
    made.add_argument("--detections", metavar="FILE", required=True, help="COCO result entries, as test --save-results writes them")
    made.add_argument("--json", metavar="FILE", help="write all numbers here")
    args = made.parse_args(argv)
    truth = read_coco(args.annotations)
    try:
        found = json.loads(Path(args.detections).read_text(encoding="utf-8"))
        if not isinstance(found, list) or any(not {"image_id", "category_id", "bbox", "score"} <= set(entry) for entry in found):
            raise ValueError
    except OSError as error:
        raise UserError(f"{args.detections}: cannot read the detections ({error.strerror}); give a file of test --save-results") from None
    except (ValueError, TypeError):
        raise UserError(f"{args.detections} is no list of COCO detections; give a file of: python -m jt_nanodet test --save-results FILE") from None
    report = {"coco": CocoEvaluator(as_coco(truth)).evaluate(found), **{f"voc{rule}": voc_metrics(truth, found, rule) for rule in RULES}}
    hard = sum(bool(entry.get("ignore")) for entry in truth["annotations"])
    print("COCO     " + " ".join(f"{name} {report['coco'][name]:.4f}" for name in METRIC_NAMES[:3]))
    for rule in RULES:
        value = report[f"voc{rule}"]["mAP"]
        print(f"VOC{rule}  mAP " + (f"{value:.4f}" if value is not None else "none: no object to be found"))
    for name, value in report["voc2012"]["per_class"].items():
        if value is not None:
            print(f"AP {name:15s} VOC2007 {report['voc2007']['per_class'][name]:.4f}  VOC2012 {value:.4f}")
    print(f"{len(found)} detections, {len(truth['annotations'])} objects, {hard} of them difficult and ignored")
    if args.json:
        with replacing(args.json) as file:
            file.write(json.dumps(report, indent=1).encode())
    return 0
