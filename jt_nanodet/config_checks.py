"""What the parts of a configuration must have in common: names this project has, sizes that fit each other."""

from __future__ import annotations

from jt_nanodet.config import (
    ACTIVATIONS,
    METRIC_NAMES,
    STAGE_CHANNELS,
    Config,
)
from jt_nanodet.errors import UserError, nearest

SUPPORTED = "NanoDetPlus with ShuffleNetV2, GhostPAN, NanoDetPlusHead and SimpleConvHead"
_PARTS = {"backbone": "ShuffleNetV2", "fpn": "GhostPAN", "head": "NanoDetPlusHead", "aux_head": "SimpleConvHead"}
_DATASETS = ("CocoDataset", "XMLDataset", "YoloDataset", "ShapesDataset")


def refuse_other_architectures(tree: dict, source: str) -> None:
    """Name an unsupported architecture before any of its keys is called unknown."""
    node = tree.get("model")
    arch = node.get("arch") if isinstance(node, dict) else None
    if not isinstance(arch, dict):
        return  # the reader says which key is missing
    found = [("model.arch.name", arch.get("name"), "NanoDetPlus")]
    found += [
        (f"model.arch.{part}.name", arch[part].get("name"), name)
        for part, name in _PARTS.items()
        if isinstance(arch.get(part), dict)
    ]
    for path, given, supported in found:
        if given is not None and given != supported:
            _fail(
                source,
                f"{path} is {given}, and only {SUPPORTED} are supported; write {supported} or start from a file in "
                "configs/",
            )


def check(cfg: Config, source: str) -> list[str]:
    """Raise UserError for parts that cannot work together; return warnings for what only looks odd."""
    _check_model(cfg.model.arch, source)
    for side in ("train", "val"):
        _check_dataset(getattr(cfg.data, side), f"data.{side}", source)
    _check_training(cfg, source)
    count, classes = len(cfg.class_names), cfg.model.arch.head.num_classes
    if not count:
        _fail(source, f"class_names is empty; list the {classes} class names")
    if len(set(cfg.class_names)) != count:
        twice = next(n for i, n in enumerate(cfg.class_names) if n in cfg.class_names[:i])
        _fail(source, f"class_names holds {twice!r} twice; give every class its own name")
    if count != classes:
        # Upstream's own template for custom data ships like this, so it must load; training refuses it later.
        return [
            f"{source}: class_names has {count} entries and model.arch.head.num_classes is {classes}; make them "
            "equal before training"
        ]
    return []


def _one_of(value, allowed, path: str, source: str) -> None:
    if value not in allowed:
        names = ", ".join("null" if a is None else str(a) for a in allowed)
        _fail(source, f"{path} is {value}; write one of {names}{_suggestion(value, allowed)}")


def _at_least(value, least, path: str, source: str) -> None:
    for i, v in enumerate(value if isinstance(value, tuple) else (value,)):
        if v < least:
            where = f"{path}[{i}]" if isinstance(value, tuple) else path
            _fail(source, f"{where} is {v}; write a number of at least {least}")


def _equal(value, path: str, wanted, because: str, source: str) -> None:
    if value != wanted:
        shown = [list(v) if isinstance(v, tuple) else v for v in (value, wanted)]
        _fail(source, f"{path} is {shown[0]} but {because}; write {path.rsplit('.', 1)[-1]}: {shown[1]}")


def _check_norm(norm, channels: int, path: str, source: str) -> None:
    if norm is None:
        return
    _one_of(norm.type, ("BN", "SyncBN", "GN"), f"{path}.type", source)
    if norm.type == "GN":
        groups = norm.num_groups
        if not groups or groups < 1:
            _fail(source, f"{path} is GN without a number of groups; add num_groups: 32")
        if channels % groups:
            _fail(
                source,
                f"{path} has {groups} groups, which do not divide {channels} channels; choose a channel count that "
                f"is a multiple of {groups}",
            )


def _check_model(arch, source: str) -> None:
    backbone, fpn, head, aux = arch.backbone, arch.fpn, arch.head, arch.aux_head
    at = "model.arch."
    _at_least(arch.detach_epoch, 0, at + "detach_epoch", source)
    _one_of(backbone.model_size, tuple(STAGE_CHANNELS), at + "backbone.model_size", source)
    for stage in backbone.out_stages:
        _one_of(stage, (2, 3, 4), at + "backbone.out_stages", source)
    if not backbone.out_stages or list(backbone.out_stages) != sorted(set(backbone.out_stages)):
        _fail(
            source,
            f"{at}backbone.out_stages is {list(backbone.out_stages)}; write stages in rising order such as [2, 3, 4]",
        )
    for name, part in (("backbone", backbone), ("fpn", fpn), ("head", head), ("aux_head", aux)):
        _one_of(part.activation, ACTIVATIONS, f"{at}{name}.activation", source)
    channels = list(STAGE_CHANNELS[backbone.model_size])
    if backbone.with_last_conv:
        channels[2] = 2048 if backbone.model_size == "2.0x" else 1024
    wanted = tuple(channels[s - 2] for s in backbone.out_stages)
    _equal(
        fpn.in_channels,
        at + "fpn.in_channels",
        wanted,
        f"backbone {backbone.model_size} with out_stages {list(backbone.out_stages)} gives {list(wanted)}",
        source,
    )
    for value, path in (
        (fpn.out_channels, "fpn.out_channels"),
        (fpn.num_blocks, "fpn.num_blocks"),
        (head.num_classes, "head.num_classes"),
        (head.feat_channels, "head.feat_channels"),
        (aux.feat_channels, "aux_head.feat_channels"),
        (head.reg_max, "head.reg_max"),
        (head.strides, "head.strides"),
        (head.assigner_cfg.topk, "head.assigner_cfg.topk"),
        (fpn.upsample_cfg.scale_factor, "fpn.upsample_cfg.scale_factor"),
    ):
        _at_least(value, 1, at + path, source)
    for value, path in (
        (fpn.num_extra_level, "fpn.num_extra_level"),
        (head.stacked_convs, "head.stacked_convs"),
        (aux.stacked_convs, "aux_head.stacked_convs"),
    ):
        _at_least(value, 0, at + path, source)
    for value, path in ((fpn.kernel_size, "fpn.kernel_size"), (head.kernel_size, "head.kernel_size")):
        if value < 1 or value % 2 == 0:
            _fail(source, f"{at}{path} is {value}; write an odd number such as 5")
    if fpn.expand <= 0:
        _fail(source, f"{at}fpn.expand is {fpn.expand}; write a number above 0 such as 1")
    _one_of(fpn.upsample_cfg.mode, ("bilinear", "nearest"), at + "fpn.upsample_cfg.mode", source)
    _equal(
        head.input_channel,
        at + "head.input_channel",
        fpn.out_channels,
        f"fpn.out_channels is {fpn.out_channels}",
        source,
    )
    _equal(
        aux.input_channel,
        at + "aux_head.input_channel",
        2 * fpn.out_channels,
        f"it takes both pyramids, 2 x fpn.out_channels = {2 * fpn.out_channels}",
        source,
    )
    levels = len(fpn.in_channels) + fpn.num_extra_level
    if len(head.strides) != levels:
        _fail(
            source,
            f"{at}head.strides has {len(head.strides)} entries but the fpn gives {levels} levels; write one stride "
            "a level",
        )
    for key in ("num_classes", "strides", "reg_max"):  # one set of targets serves both heads
        _equal(
            getattr(aux, key),
            f"{at}aux_head.{key}",
            getattr(head, key),
            f"head.{key} is {_plain(getattr(head, key))}",
            source,
        )
    _one_of(head.conv_type, ("DWConv", "Conv"), at + "head.conv_type", source)
    _check_norm(fpn.norm_cfg, fpn.out_channels, at + "fpn.norm_cfg", source)
    _check_norm(head.norm_cfg, head.feat_channels, at + "head.norm_cfg", source)
    _check_norm(aux.norm_cfg, aux.feat_channels, at + "aux_head.norm_cfg", source)
    loss = head.loss
    for key, name in (
        ("loss_qfl", "QualityFocalLoss"),
        ("loss_dfl", "DistributionFocalLoss"),
        ("loss_bbox", "GIoULoss"),
    ):
        _one_of(getattr(loss, key).name, (name,), f"{at}head.loss.{key}.name", source)
    if not loss.loss_qfl.use_sigmoid:
        _fail(
            source,
            f"{at}head.loss.loss_qfl.use_sigmoid is false and only the sigmoid form exists; write use_sigmoid: true",
        )


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _check_dataset(data, path: str, source: str) -> None:
    _one_of(data.name, _DATASETS, f"{path}.name", source)
    _at_least(data.input_size, 1, f"{path}.input_size", source)
    if data.name == "ShapesDataset":
        _at_least(data.count, 1, f"{path}.count", source)
        _at_least(data.image_size, 32, f"{path}.image_size", source)
    else:
        for key in ("img_path", "ann_path"):
            if not getattr(data, key):
                _fail(source, f"missing key {path}.{key}; add it")
    if data.name in ("XMLDataset", "YoloDataset") and not data.class_names:
        _fail(
            source,
            f"missing key {path}.class_names, which {data.name} needs; add it (an anchor on class_names will do)",
        )
    if data.image_set is not None and data.name not in ("XMLDataset",):
        _fail(source, f"{path}.image_set belongs to XMLDataset, not to {data.name}; remove it")
    for key in ("use_instance_mask", "use_seg_mask", "use_keypoint", "load_mosaic"):
        if getattr(data, key):
            _fail(source, f"{path}.{key} is true and NanoDet-Plus has no use for it; write {key}: false")
    pipeline = data.pipeline
    for i, value in enumerate(pipeline.normalize[1]):
        if value <= 0:
            _fail(source, f"{path}.pipeline.normalize[1][{i}] is {value}; write a standard deviation above 0")
    _at_least(pipeline.divisible, 0, f"{path}.pipeline.divisible", source)
    if not 0 <= pipeline.flip <= 1:
        _fail(source, f"{path}.pipeline.flip is {pipeline.flip}; write a probability from 0 to 1")
    for key, low in (("scale", pipeline.scale[0]), ("stretch", min(s for pair in pipeline.stretch for s in pair))):
        if low <= 0:
            _fail(source, f"{path}.pipeline.{key} reaches {low}; write factors above 0")
    if data.multi_scale is not None and min(data.multi_scale) <= 0:
        _fail(source, f"{path}.multi_scale reaches {min(data.multi_scale)}; write factors above 0 such as [0.8, 1.2]")


def _check_training(cfg: Config, source: str) -> None:
    device, schedule = cfg.device, cfg.schedule
    _at_least(device.batchsize_per_gpu, 1, "device.batchsize_per_gpu", source)
    _at_least(device.workers_per_gpu, 0, "device.workers_per_gpu", source)
    _one_of(device.precision, (32, 16), "device.precision", source)
    if isinstance(device.gpu_ids, int) and device.gpu_ids != -1 or device.gpu_ids == ():
        _fail(source, f"device.gpu_ids is {_plain(device.gpu_ids)}; write a list such as [0], or -1 for the CPU")
    _one_of(schedule.optimizer.name, ("AdamW", "SGD"), "schedule.optimizer.name", source)
    _one_of(schedule.warmup.name, ("linear", "constant", "exp"), "schedule.warmup.name", source)
    _one_of(schedule.lr_schedule.name, ("CosineAnnealingLR",), "schedule.lr_schedule.name", source)
    for value, path in (
        (schedule.total_epochs, "total_epochs"),
        (schedule.val_intervals, "val_intervals"),
        (schedule.lr_schedule.T_max, "lr_schedule.T_max"),
    ):
        _at_least(value, 1, f"schedule.{path}", source)
    for value, path in (
        (schedule.warmup.steps, "schedule.warmup.steps"),
        (schedule.optimizer.lr, "schedule.optimizer.lr"),
        (schedule.optimizer.decay, "schedule.optimizer.weight_decay"),
        (cfg.grad_clip, "grad_clip"),
    ):
        _at_least(value, 0, path, source)
    averager = cfg.model.weight_averager
    if averager is not None:
        _one_of(averager.name, ("ExpMovingAverager",), "model.weight_averager.name", source)
        if not 0 <= averager.decay <= 1:
            _fail(source, f"model.weight_averager.decay is {averager.decay}; write a number from 0 to 1")
    _at_least(cfg.log.interval, 1, "log.interval", source)
    _one_of(cfg.evaluator.name, ("CocoDetectionEvaluator",), "evaluator.name", source)
    _one_of(cfg.evaluator.save_key, METRIC_NAMES, "evaluator.save_key", source)


def _fail(source: str, what: str) -> None:
    """Raise the UserError of a file: ``what`` says what is wrong and what to write instead."""
    raise UserError(f"{source}: {what}")


def _suggestion(word: object, words) -> str:
    """The words ``did you mean`` with the entry nearest to a wrong one, or nothing."""
    found = nearest(word, [w for w in words if w is not None])
    return f" (did you mean {found}?)" if found else ""
