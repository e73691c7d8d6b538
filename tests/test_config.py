"""jt_nanodet.config, config_reader, config_checks: what loads, what is refused and in which words."""

import copy
import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jt_nanodet.config import (
    AuxHeadConfig,
    BackboneConfig,
    FpnConfig,
    HeadConfig,
    NormConfig,
    config_from_dict,
    load_config,
)
from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yml"))


@functools.cache
def _parsed(name):
    return yaml.safe_load((ROOT / f"configs/{name}.yml").read_text())


def tree(name="nanodet-plus-m_320"):
    return copy.deepcopy(_parsed(name))


def put(data, path, value):
    """Set a.b.c in nested dictionaries; a value of ... removes the key."""
    *parents, last = path.split(".")
    for key in parents:
        data = data.setdefault(key, {})
    if value is ...:
        del data[last]
    else:
        data[last] = value


def refusal(path, value, name="nanodet-plus-m_320"):
    data = tree(name)
    put(data, path, value)
    with pytest.raises(UserError) as caught:
        config_from_dict(data, "x.yml")
    message = str(caught.value)
    assert message.startswith("x.yml: ") and "\n" not in message
    return message


def test_the_nine_files_are_there():
    assert len(CONFIGS) == 9


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_own_files_load_without_a_warning(path):
    cfg = load_config(path)
    assert cfg.warnings == ()
    assert config_from_dict(cfg.to_dict()) == cfg
    assert cfg.save_dir == f"workspace/{path.stem}"
    assert len(cfg.class_names) == cfg.model.arch.head.num_classes


@pytest.mark.parametrize(
    "stem,size,channels,out,pixels,classes",
    [
        ("nanodet-plus-m_320", "1.0x", (116, 232, 464), 96, 320, 80),
        ("nanodet-plus-m_416", "1.0x", (116, 232, 464), 96, 416, 80),
        ("nanodet-plus-m-1.5x_320", "1.5x", (176, 352, 704), 128, 320, 80),
        ("nanodet-plus-m-1.5x_416", "1.5x", (176, 352, 704), 128, 416, 80),
        ("nanodet-plus-m_320_voc", "1.0x", (116, 232, 464), 96, 320, 20),
        ("nanodet-plus-m-1.5x_416_voc", "1.5x", (176, 352, 704), 128, 416, 20),
    ],
)
def test_published_sizes(stem, size, channels, out, pixels, classes):
    cfg = load_config(ROOT / f"configs/{stem}.yml")
    arch = cfg.model.arch
    assert (arch.backbone.model_size, arch.fpn.in_channels, arch.fpn.out_channels) == (size, channels, out)
    assert (arch.head.feat_channels, arch.aux_head.feat_channels, arch.head.num_classes) == (out, 2 * out, classes)
    assert cfg.data.train.input_size == cfg.data.val.input_size == (pixels, pixels)
    assert cfg.data.val.keep_ratio is False and cfg.data.val.pipeline.brightness is None
    assert (
        cfg.schedule.optimizer.lr,
        cfg.schedule.optimizer.decay,
        cfg.schedule.warmup.ratio,
        cfg.schedule.lr_schedule.eta_min,
    ) == (0.001, 0.05, 0.0001, 0.00005)
    assert (cfg.grad_clip, cfg.device.batchsize_per_gpu, cfg.model.weight_averager.decay, arch.detach_epoch) == (
        35,
        96,
        0.9998,
        10,
    )
    assert [p.loss_weight for p in (arch.head.loss.loss_qfl, arch.head.loss.loss_dfl, arch.head.loss.loss_bbox)] == [
        1.0,
        0.25,
        2.0,
    ]


def test_defaults_are_those_of_upstreams_constructors():
    head = HeadConfig("NanoDetPlusHead", 3, None, 96)
    assert (head.feat_channels, head.stacked_convs, head.kernel_size, head.strides, head.reg_max) == (
        96,
        2,
        5,
        (8, 16, 32),
        7,
    )
    assert (head.conv_type, head.activation, head.norm_cfg) == ("DWConv", "LeakyReLU", NormConfig("BN"))
    assert (head.assigner_cfg.topk, head.assigner_cfg.iou_factor, head.assigner_cfg.ignore_iof_thr) == (13, 3.0, -1)
    aux = AuxHeadConfig("SimpleConvHead", 3, 192)
    assert (aux.feat_channels, aux.stacked_convs, aux.strides, aux.reg_max, aux.norm_cfg.num_groups) == (
        256,
        4,
        (8, 16, 32),
        16,
        32,
    )
    fpn = FpnConfig("GhostPAN", (116,), 96)
    assert (fpn.use_depthwise, fpn.kernel_size, fpn.expand, fpn.num_blocks, fpn.use_res, fpn.num_extra_level) == (
        False,
        5,
        1,
        1,
        False,
        0,
    )
    assert (fpn.upsample_cfg.scale_factor, fpn.upsample_cfg.mode) == (2, "bilinear")
    backbone = BackboneConfig("ShuffleNetV2")
    assert (backbone.model_size, backbone.out_stages, backbone.with_last_conv, backbone.activation) == (
        "1.5x",
        (2, 3, 4),
        False,
        "ReLU",
    )


@pytest.mark.parametrize(
    "path,value,words",
    [
        (
            "model.arch.fpn.out_chanels",
            96,
            "unknown key model.arch.fpn.out_chanels; write model.arch.fpn.out_channels instead",
        ),
        ("model.arch.head.loss.loss_qfl.bta", 2.0, "write model.arch.head.loss.loss_qfl.beta instead"),
        ("data.train.pipeline.Flip", 0.5, "write data.train.pipeline.flip instead"),
        ("grad_clp", 35, "write grad_clip instead"),
        ("schedule.zzz", 1, "unknown key schedule.zzz; remove it, or use one of optimizer"),
        ("model.arch.head.num_classes", "80", "model.arch.head.num_classes is '80'; write a whole number"),
        ("model.arch.head.num_classes", True, "write a whole number"),
        ("data.val.keep_ratio", 0, "data.val.keep_ratio is 0; write true or false"),
        ("data.train.input_size", [320], "write a list of 2 entries, each a whole number"),
        ("data.train.input_size", [320, 320.5], "data.train.input_size[1] is 320.5"),
        ("schedule.optimizer.lr", "fast", "schedule.optimizer.lr is 'fast'; write a finite number"),
        ("schedule.optimizer.lr", float("nan"), "write a finite number"),
        ("data.train.pipeline", None, "data.train.pipeline is nothing; write a mapping"),
        ("model.arch.head.loss", ..., "missing key model.arch.head.loss; add it"),
        ("schedule.warmup.steps", ..., "missing key schedule.warmup.steps; add it"),
        ("device.gpu_ids", "0", "device.gpu_ids is '0'; write a list"),
    ],
)
def test_strict_reading(path, value, words):
    assert words in refusal(path, value)


@pytest.mark.parametrize(
    "path,value,words",
    [
        ("model.arch.backbone.model_size", "1.5x", "write in_channels: [176, 352, 704]"),
        ("model.arch.backbone.model_size", "3.0x", "write one of 0.5x, 1.0x, 1.5x, 2.0x"),
        ("model.arch.backbone.out_stages", [3, 4], "write in_channels: [232, 464]"),
        ("model.arch.backbone.out_stages", [2, 4, 3], "rising order"),
        ("model.arch.fpn.in_channels", [116, 232, 465], "gives [116, 232, 464]"),
        (
            "model.arch.head.input_channel",
            128,
            "model.arch.head.input_channel is 128 but fpn.out_channels is 96; write input_channel: 96",
        ),
        ("model.arch.aux_head.input_channel", 96, "write input_channel: 192"),
        ("model.arch.aux_head.feat_channels", 200, "32 groups, which do not divide 200 channels"),
        ("model.arch.aux_head.num_classes", 20, "write num_classes: 80"),
        ("model.arch.aux_head.reg_max", 16, "write reg_max: 7"),
        ("model.arch.head.strides", [8, 16, 32], "head.strides has 3 entries but the fpn gives 4 levels"),
        ("model.arch.head.kernel_size", 4, "write an odd number"),
        ("model.arch.head.activation", "LeakyRelu", "did you mean LeakyReLU?"),
        ("model.arch.head.norm_cfg", {"type": "GN"}, "add num_groups: 32"),
        ("model.arch.head.loss.loss_bbox.name", "CIoULoss", "write one of GIoULoss"),
        ("data.train.name", "CocoDatset", "did you mean CocoDataset?"),
        ("data.train.load_mosaic", True, "write load_mosaic: false"),
        ("data.train.pipeline.flip", 1.5, "write a probability"),
        ("data.val.img_path", ..., "missing key data.val.img_path; add it"),
        ("device.precision", 8, "write one of 32, 16"),
        ("schedule.optimizer.name", "Adamw", "did you mean AdamW?"),
        ("evaluator.save_key", "map", "did you mean mAP?"),
        ("class_names", ["a"] * 80, "'a' twice"),
    ],
)
def test_sizes_and_names_must_fit(path, value, words):
    assert words in refusal(path, value)


@pytest.mark.parametrize(
    "path,value",
    [
        ("model.arch.name", "OneStageDetector"),
        ("model.arch.name", "GFL"),
        ("model.arch.backbone.name", "EfficientNetLite"),
        ("model.arch.backbone.name", "TIMMWrapper"),
        ("model.arch.fpn.name", "PAN"),
        ("model.arch.head.name", "NanoDetHead"),
    ],
)
def test_other_architectures_are_named_before_their_keys(path, value):
    message = refusal(path, value)
    assert (
        f"{path} is {value}, and only NanoDetPlus with ShuffleNetV2, GhostPAN, NanoDetPlusHead and SimpleConvHead "
        "are supported" in message
    )
    data = tree()
    put(data, path, value)
    put(data, "model.arch.backbone.some_other_key", 1)
    with pytest.raises(UserError, match="are supported"):
        config_from_dict(data)


def test_template_with_other_class_count_loads_with_a_warning():
    data = tree()
    data["class_names"] = ["NAME1", "NAME2", "NAME3", "NAME4", "..."]
    for side in ("train", "val"):
        data["data"][side].update(name="XMLDataset", class_names=data["class_names"], keep_ratio=True)
    cfg = config_from_dict(data, "x.yml")
    assert cfg.warnings == (
        "x.yml: class_names has 5 entries and model.arch.head.num_classes is 80; make them equal before training",
    )
    assert cfg.data.train.class_names[0] == "NAME1"


def test_old_dataset_names_and_text_numbers_are_understood():
    data = tree()
    data["data"]["train"]["name"] = "coco"
    data["schedule"]["optimizer"]["lr"] = "1e-3"
    cfg = config_from_dict(data)
    assert cfg.data.train.name == "CocoDataset" and cfg.schedule.optimizer.lr == 0.001


def test_resume_key_alone_means_yes():
    data = tree()
    assert config_from_dict(data).schedule.resume is False
    data["schedule"]["resume"] = None
    assert config_from_dict(data).schedule.resume is True
    assert data["schedule"]["resume"] is None


def test_parameter_level_rates():
    data = tree()
    data["schedule"]["optimizer"]["param_level_cfg"] = {"backbone": {"lr_mult": 0.1}}
    assert config_from_dict(data).schedule.optimizer.param_level_cfg["backbone"].lr_mult == 0.1
    assert "write schedule.optimizer.param_level_cfg.backbone.lr_mult instead" in refusal(
        "schedule.optimizer.param_level_cfg", {"backbone": {"lr_mul": 0.1}}
    )


def test_hash_sees_values_and_nothing_else(tmp_path):
    path = ROOT / "configs/shapes.yml"
    reference = load_config(path)
    data = tree("shapes")
    shuffled = dict(reversed(list(copy.deepcopy(data).items())))
    shuffled["cudnn_benchmark"] = True  # a default spelt out
    (tmp_path / "a.yml").write_text("# other words\n" + yaml.safe_dump(shuffled, sort_keys=False))
    assert load_config(tmp_path / "a.yml").sha256() == reference.sha256()
    data["grad_clip"] = 35.5
    assert config_from_dict(data).sha256() != reference.sha256()
    groups = {"backbone": {"lr_mult": 0.1}, "back": {"lr_mult": 0.2}}
    hashes = set()
    for order in (groups, dict(reversed(groups.items()))):  # the first match wins, so order is a value
        data["schedule"]["optimizer"]["param_level_cfg"] = order
        hashes.add(config_from_dict(data).sha256())
    assert len(hashes) == 2
    line = f"from jt_nanodet.config import load_config; print(load_config({str(path)!r}).sha256())"
    other = subprocess.run(
        [sys.executable, "-c", line], cwd=ROOT, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == reference.sha256()


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config(ROOT / "configs/shapes.yml").save_dir = "elsewhere"


@pytest.mark.parametrize(
    "text,words",
    [
        ("model:\n  arch: [1, 2\ndata: 3\n", "line 3, column"),
        ("a: 1\na: 2\n", "line 2, column 1: not valid YAML (the key a stands twice)"),
        ("- 1\n", "holds [1] where a configuration is a mapping"),
        ("", "holds nothing where a configuration is a mapping"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1"),
        ("model: 3\n", "model is 3; write a mapping with the keys arch"),
        ("[a]: 1\n? [b]\n: 2\n", "not valid YAML"),
    ],
)
def test_broken_files(tmp_path, text, words):
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "x.yml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="no such configuration file.*shapes.yml"):
        load_config(ROOT / "configs/shape.yml")
    (tmp_path / "b.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="b.yml"):
        load_config(tmp_path / "b.yml")
    with pytest.raises(UserError, match="cannot read"):
        load_config(tmp_path)


def test_configuration_dumped_by_upstream_loads(shared):
    cfg = load_config(shared / "data/logs/pytorch_train_cfg.yml")
    assert (
        cfg.device.precision == 16
        and cfg.data.train.pipeline.rotation == 10
        and cfg.schedule.lr_schedule.eta_min == 1e-5
    )
