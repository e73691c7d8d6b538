"""NanoDetPlus: backbone, neck, head and the training-only auxiliary branch (`nanodet/model/arch/nanodet_plus.py`)."""
import numpy as np
import jittor as jt
from jittor import nn

from .weight_rules import check_fit

from .aux_head import SimpleConvHead
from .backbone import ShuffleNetV2
from .head import NanoDetPlusHead
from .neck import GhostPAN


class NanoDetPlus(nn.Module):
    """Images (B, 3, H, W), normalised, to raw predictions (B, P, C + 4·R); cfg: ArchConfig."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone = ShuffleNetV2(cfg.backbone)
        self.fpn = GhostPAN(cfg.fpn)
        self.head = NanoDetPlusHead(cfg.head)
        self.aux_fpn = GhostPAN(cfg.fpn)
        self.aux_head = SimpleConvHead(cfg.aux_head)
        self.cfg = cfg

    def execute(self, images):
        return self.head(self.fpn(self.backbone(images)))

    def forward_aux(self, images, detach):
        """Raw predictions of the head and of the auxiliary head; `detach` cuts the auxiliary branch off its inputs."""
        features = self.backbone(images)
        pyramid = self.fpn(features)
        raw = self.head(pyramid)
        if detach:
            features, pyramid = [x.detach() for x in features], [x.detach() for x in pyramid]
        aux_pyramid = self.aux_fpn(features)
        return raw, self.aux_head([jt.concat((a, b), dim=1) for a, b in zip(pyramid, aux_pyramid)])


def build_model(arch):
    """The detector of an ArchConfig, in evaluation mode, with untrained weights."""
    model = NanoDetPlus(arch)
    model.eval()  # differs: returns None
    return model


def file_shape(name, shape):
    """The shape an entry has in upstream's state dict."""  # differs: Jittor has no 0-d Var
    return () if name.endswith(("num_batches_tracked", ".scale")) else tuple(shape)


def state_arrays(model):
    """The whole state dict as NumPy arrays (copies), under upstream's names, in upstream's order."""
    arrays = {k: v.numpy().reshape(file_shape(k, v.shape)) for k, v in model.state_dict().items()}
    return {k: v.astype(np.int64) if v.dtype.kind == "i" else v.copy() for k, v in arrays.items()}  # differs: counters are int32 here


def load_state(model, weights, training_branch=True):
    """Copy `weights` (name to array) into the model; every key of both sides must be met, with its shape.

    training_branch=False accepts weights without any key of the auxiliary branch, which inference never runs.
    Raises UserError naming what is missing, unexpected, of another shape or not finite.
    """
    own = model.state_dict()
    check_fit({k: file_shape(k, v.shape) for k, v in own.items()}, weights, training_branch)
    for k, value in weights.items():
        own[k].update(jt.array(np.ascontiguousarray(value).reshape(own[k].shape)).cast(own[k].dtype))
    jt.sync(list(own.values()))  # differs: a one-element array still waiting to be copied breaks Jittor's fused code for `x * scale`
