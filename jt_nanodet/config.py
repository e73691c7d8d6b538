"""One configuration for both sides: frozen dataclasses read from upstream's YAML schema.

Upstream's NanoDet-Plus files load unchanged, and a field that a file leaves out gets the default of the upstream
constructor it is passed to (``nanodet/model/**``, ``nanodet/data/**`` of RangiLyu/nanodet). Reading is strict where
upstream is not: an unknown key, a value of the wrong type or sizes that cannot fit is one sentence. Framework-free.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from jt_nanodet.config_reader import read_dataclass, read_yaml
from jt_nanodet.errors import UserError

#: Channels of ShuffleNetV2's stages 2, 3 and 4 (Ma et al. 2018, table 5; upstream ``backbone/shufflenetv2.py``).
STAGE_CHANNELS = {
    "0.5x": (48, 96, 192),
    "1.0x": (116, 232, 464),
    "1.5x": (176, 352, 704),
    "2.0x": (244, 488, 976),
}
ACTIVATIONS = (*"ReLU LeakyReLU ReLU6 SELU ELU GELU PReLU SiLU HardSwish Hardswish".split(), None)
METRIC_NAMES = tuple("mAP AP_50 AP_75 AP_small AP_m AP_l AR_1 AR_10 AR_100 AR_small AR_m AR_l".split())
#: Names of upstream's v0.x files that mean the same dataset.
OLD_DATASET_NAMES = {"coco": "CocoDataset", "xml_dataset": "XMLDataset", "yolo": "YoloDataset"}


@dataclass(frozen=True)
class NormConfig:
    """A norm layer: ``type`` is BN, SyncBN or GN; GN needs ``num_groups``."""

    type: str
    num_groups: int | None = None
    requires_grad: bool = True
    eps: float = 1e-5


@dataclass(frozen=True)
class BackboneConfig:
    """ShuffleNetV2. ``kernal_size`` is spelt as upstream spells it, where it is stored and never used."""

    name: str
    model_size: str = "1.5x"
    out_stages: tuple[int, ...] = (2, 3, 4)
    with_last_conv: bool = False
    kernal_size: int = 3
    activation: str | None = "ReLU"
    pretrain: bool = True


@dataclass(frozen=True)
class UpsampleConfig:
    scale_factor: int = 2
    mode: str = "bilinear"


@dataclass(frozen=True)
class FpnConfig:
    """GhostPAN; one output level per entry of ``in_channels`` plus ``num_extra_level``."""

    name: str
    in_channels: tuple[int, ...]
    out_channels: int
    use_depthwise: bool = False
    kernel_size: int = 5
    expand: float = 1
    num_blocks: int = 1
    use_res: bool = False
    num_extra_level: int = 0
    upsample_cfg: UpsampleConfig = UpsampleConfig()
    norm_cfg: NormConfig | None = NormConfig("BN")
    activation: str | None = "LeakyReLU"


@dataclass(frozen=True)
class QualityFocalConfig:
    name: str = "QualityFocalLoss"
    use_sigmoid: bool = True
    beta: float = 2.0
    loss_weight: float = 1.0


@dataclass(frozen=True)
class DistributionFocalConfig:
    name: str = "DistributionFocalLoss"
    loss_weight: float = 1.0


@dataclass(frozen=True)
class GIoUConfig:
    name: str = "GIoULoss"
    loss_weight: float = 1.0


@dataclass(frozen=True)
class LossConfig:
    loss_qfl: QualityFocalConfig
    loss_dfl: DistributionFocalConfig
    loss_bbox: GIoUConfig


@dataclass(frozen=True)
class AssignerConfig:
    """Dynamic soft label assigner; ``ignore_iof_thr`` <= 0 turns ignored boxes off."""

    topk: int = 13
    iou_factor: float = 3.0
    ignore_iof_thr: float = -1.0


@dataclass(frozen=True)
class HeadConfig:
    """NanoDetPlusHead; R = reg_max + 1 bins a side, C + 4R outputs a prior."""

    name: str
    num_classes: int
    loss: LossConfig
    input_channel: int
    feat_channels: int = 96
    stacked_convs: int = 2
    kernel_size: int = 5
    strides: tuple[int, ...] = (8, 16, 32)
    conv_type: str = "DWConv"
    norm_cfg: NormConfig | None = NormConfig("BN")
    reg_max: int = 7
    activation: str | None = "LeakyReLU"
    assigner_cfg: AssignerConfig = AssignerConfig()


@dataclass(frozen=True)
class AuxHeadConfig:
    """SimpleConvHead, used in training only."""

    name: str
    num_classes: int
    input_channel: int
    feat_channels: int = 256
    stacked_convs: int = 4
    strides: tuple[int, ...] = (8, 16, 32)
    norm_cfg: NormConfig | None = NormConfig("GN", num_groups=32)
    activation: str | None = "LeakyReLU"
    reg_max: int = 16


@dataclass(frozen=True)
class ArchConfig:
    name: str
    backbone: BackboneConfig
    fpn: FpnConfig
    head: HeadConfig
    aux_head: AuxHeadConfig
    detach_epoch: int = 0


@dataclass(frozen=True)
class WeightAveragerConfig:
    name: str = "ExpMovingAverager"
    decay: float = 0.9998


@dataclass(frozen=True)
class ModelConfig:
    arch: ArchConfig
    weight_averager: WeightAveragerConfig | None = None


@dataclass(frozen=True)
class PipelineConfig:
    """Augmentation. The shape keys are always drawn; a colour key that is None is not drawn at all, as upstream.

    ``normalize`` is (BGR mean, BGR std) in grey levels; ``rotation`` and ``shear`` are degrees.
    """

    normalize: tuple[tuple[float, float, float], tuple[float, float, float]]
    divisible: int = 0
    perspective: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 1.0), (1.0, 1.0))
    rotation: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    flip: float = 0.0
    brightness: float | None = None
    contrast: tuple[float, float] | None = None
    saturation: tuple[float, float] | None = None


@dataclass(frozen=True)
class DatasetConfig:
    """One dataset; ``input_size`` is (w, h), ``multi_scale`` a range of factors on it.

    Ours beyond upstream: ``image_set`` (a VOC split list); ``count``, ``seed``, ``image_size`` (w, h) of ShapesDataset.
    """

    name: str
    input_size: tuple[int, int]
    pipeline: PipelineConfig
    img_path: str = ""
    ann_path: str = ""
    keep_ratio: bool = True
    class_names: tuple[str, ...] | None = None
    multi_scale: tuple[float, float] | None = None
    use_instance_mask: bool = False
    use_seg_mask: bool = False
    use_keypoint: bool = False
    load_mosaic: bool = False
    image_set: str | None = None
    count: int = 0
    seed: int = 0
    image_size: tuple[int, int] = (160, 160)

    def __post_init__(self):
        object.__setattr__(self, "name", OLD_DATASET_NAMES.get(self.name, self.name))


@dataclass(frozen=True)
class DataConfig:
    train: DatasetConfig
    val: DatasetConfig


@dataclass(frozen=True)
class DeviceConfig:
    """``gpu_ids`` -1 means the CPU, as upstream; ``precision`` is 32 or 16."""

    batchsize_per_gpu: int
    workers_per_gpu: int = 0
    gpu_ids: tuple[int, ...] | int = (0,)
    precision: int = 32


@dataclass(frozen=True)
class ParamLevelConfig:
    """Factors on rate and decay for parameters whose name contains the key it stands under."""

    lr_mult: float = 1.0
    decay_mult: float = 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or SGD. ``weight_decay`` None means PyTorch's own default (AdamW 0.01, SGD 0)."""

    name: str
    lr: float
    weight_decay: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    nesterov: bool = False
    no_norm_decay: bool = False
    no_bias_decay: bool = False
    param_level_cfg: dict[str, ParamLevelConfig] = field(default_factory=dict)

    @property
    def decay(self) -> float:
        """The weight decay in force."""
        return {"AdamW": 0.01}.get(self.name, 0.0) if self.weight_decay is None else self.weight_decay


@dataclass(frozen=True)
class WarmupConfig:
    """``name`` is constant, linear or exp; the rate starts at ``ratio`` of the full one."""

    name: str
    steps: int
    ratio: float


@dataclass(frozen=True)
class LrScheduleConfig:
    """Cosine annealing over ``T_max`` epochs down to ``eta_min``."""

    name: str
    T_max: int
    eta_min: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """``resume`` is true when its key stands in the file without a value, as upstream."""

    optimizer: OptimizerConfig
    warmup: WarmupConfig
    total_epochs: int
    lr_schedule: LrScheduleConfig
    val_intervals: int = 1
    resume: bool | str = False
    load_model: str | None = None


@dataclass(frozen=True)
class EvaluatorConfig:
    name: str = "CocoDetectionEvaluator"
    save_key: str = "mAP"


@dataclass(frozen=True)
class LogConfig:
    interval: int = 50


@dataclass(frozen=True)
class EmptySection:
    """The ``test`` section of a configuration that upstream dumped; nothing reads it."""


@dataclass(frozen=True)
class Config:
    """The whole file. ``warnings`` holds sentences about things that load but are worth knowing."""

    model: ModelConfig
    data: DataConfig
    device: DeviceConfig
    schedule: ScheduleConfig
    class_names: tuple[str, ...]
    save_dir: str = "./"
    grad_clip: float = 0.0
    evaluator: EvaluatorConfig = EvaluatorConfig()
    log: LogConfig = LogConfig()
    test: EmptySection | None = None
    cudnn_benchmark: bool = True
    warnings: tuple[str, ...] = field(default=(), compare=False, metadata={"derived": True})

    def to_dict(self) -> dict:
        """Plain nested dictionary that ``config_from_dict`` takes back."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "warnings"}

    def sha256(self) -> str:
        """Hash of every field: comments, order of keys and defaults spelt out do not matter."""
        # Keys stand in the order of the fields; param_level_cfg keeps its own, in which the first match wins.
        return hashlib.sha256(json.dumps(self.to_dict(), separators=(",", ":")).encode()).hexdigest()


def load_config(path) -> Config:
    """Read a YAML file; UserError when it cannot be read, is not YAML, or does not describe a NanoDet-Plus."""
    return config_from_dict(read_yaml(path), str(path))


def with_input_size(config: Config, size: int | tuple[int, int] | None) -> Config:
    """`config` with another validation input, (w, h) or one number for both; unchanged for None. UserError unless it divides by the stride of
    the backbone's last level, whose map the neck enlarges to the next one's; the level above it may be larger than its share (416 gives 7 of 6.5)."""
    if size is None:
        return config
    size = (size, size) if isinstance(size, int) else tuple(size)
    step = config.model.arch.head.strides[len(config.model.arch.fpn.in_channels) - 1]
    if min(size) < step or any(side % step for side in size):
        near = max(step, round(size[0] / step) * step)
        raise UserError(f"an input of {size[0]}x{size[1]} does not divide by the stride {step}: give a size such as {near}")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, val=dataclasses.replace(config.data.val, input_size=size)))


def config_from_dict(tree: dict, source: str = "configuration") -> Config:
    """Build and check a Config from nested plain data; ``source`` names it in error messages."""
    from jt_nanodet.config_checks import check, refuse_other_architectures

    refuse_other_architectures(tree, source)
    if isinstance(tree.get("schedule"), dict) and tree["schedule"].get("resume", False) is None:
        tree = {**tree, "schedule": {**tree["schedule"], "resume": True}}
    cfg = read_dataclass(Config, tree, "", source)
    return dataclasses.replace(cfg, warnings=tuple(check(cfg, source)))
