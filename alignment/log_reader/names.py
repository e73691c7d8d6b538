"""What a name in a log stands for: its phase, its kind, and whether two names are spellings of one thing.

Only spelling is bridged here (``loss_qfl`` and ``qfl_loss``, ``learning_rate`` and ``lr``, ``mAP@0.5:0.95`` and ``mAP``). Whether ``cls_loss``
of one program is ``loss_qfl`` of another is knowledge about the programs, which belongs in a map file.
"""

from __future__ import annotations

import re

KINDS = ("loss", "lr", "metric", "environment", "other")

_LR = {"lr", "learningrate", "学习率", "lrpg0", "lr0"}
_ENVIRONMENT = re.compile(
    r"^(mem(ory)?|gpu_?mem(ory)?|max_?mem(ory)?|time|eta|speed|fps|ips|data_?time|batch_?time|iter_?time|elapsed|duration|reader_?cost|batch_?cost"
    r"|cost|wall_?time|(\w+_)?seconds|batches|samples|hours|minutes|images?_per_s(ec)?|it_s|timestamp|ts|pid|rank|gpu|version|batch|batch_?size|batch_idx|num_batches"
    r"|total_epochs|total_steps|batches_per_epoch|steps_per_epoch|port|seed|显存|耗时|时间)$",
    re.I,
)
_METRIC = re.compile(r"^(bbox_?|coco_?|metrics?_?|box_?)*(m?ap|ar|aps|apm|apl|acc(uracy)?|top\d|f1|precision|recall|miou|iou|精度|准确率)(?![a-z])", re.I)
_BEST = re.compile(r"^(best|final|max|最佳|最好)[_\s]?", re.I)
_PHASE = re.compile(r"^(train(?:ing)?|val(?:id(?:ation)?)?|test|eval)(?:_?(?:loss|metrics?))?(?=[/_.\s])[/_.\s]+", re.I)
# Spellings of the COCO numbers, after lower-casing and removing separators; the left side is the canonical name.
_COCO = {
    "map": {"map", "ap", "bboxmap", "map5095", "ap5095", "map05095", "map0595", "ap05095", "ap0595", "boxap", "bboxap", "mapbbox"},
    "ap_50": {"ap50", "map50", "map05", "ap05", "bboxmap50", "bboxap50"},
    "ap_75": {"ap75", "map75", "map075", "ap075", "bboxmap75", "bboxap75"},
    "ap_small": {"apsmall", "aps", "maps", "mapsmall", "bboxmaps"},
    "ap_m": {"apm", "apmedium", "mapm", "mapmedium", "bboxmapm"},
    "ap_l": {"apl", "aplarge", "mapl", "maplarge", "bboxmapl"},
}
_COCO_OF = {word: name for name, words in _COCO.items() for word in words}


def kind_of(name: str) -> str:
    """"loss", "lr", "metric", "environment" or "other" for a series name without its phase."""
    lower = name.lower()
    if re.sub(r"[_\s/.-]", "", lower) in _LR or re.search(r"(^|[_/])lr($|[_/]pg\d)", lower):
        return "lr"
    if "loss" in lower or "损失" in lower:
        return "loss"
    if _ENVIRONMENT.match(lower):
        return "environment"
    if lower.startswith(("coco_a", "class_", "per_class")) or _METRIC.match(lower) or canonical(lower) in _COCO:
        return "metric"
    return "other"


def is_summary(name: str) -> bool:
    """True for ``Best mAP`` and the like, which quote an earlier value and are not a point of a curve."""
    match = _BEST.match(name)
    return bool(match) and kind_of(name[match.end():]) in ("metric", "loss")


def summary_target(name: str) -> str:
    """The name that a summary quotes: ``best_mAP`` → ``mAP``."""
    return _BEST.sub("", name)


def split_phase(name: str, default: str) -> tuple[str, str]:
    """Take a phase prefix off a name: ``val/loss`` → ("val", "loss"). A name that is only a phase and the word loss keeps the word loss."""
    match = _PHASE.match(name)
    if not match:
        return default, name
    phase = "train" if match.group(1).lower().startswith("train") else "val"
    return phase, name[match.end():] or name


def canonical(name: str) -> str:
    """A spelling-free form of a name; two names with the same form are taken for the same series."""
    lower = name.lower().strip()
    squeezed = re.sub(r"[_\s/.:@\-\[\]()%]", "", lower.removeprefix("metrics/").removeprefix("coco/"))
    if squeezed in _LR:
        return "lr"
    if squeezed in _COCO_OF:
        return _COCO_OF[squeezed]
    tokens = [token for token in re.split(r"[_\s/.\-]+", lower) if token]
    if "loss" in tokens:
        tokens = ["loss"] if set(tokens) in ({"total", "loss"}, {"loss", "all"}, {"sum", "loss"}) else ["loss"] + [t for t in tokens if t != "loss"]
    return "_".join(sorted(tokens))
