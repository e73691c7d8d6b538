"""SimpleConvHead: the training-only auxiliary head, as `nanodet/model/head/simple_conv_head.py` builds it.

One tower for all levels, fed the concatenation of both pyramids; raw output (B, P, C + 4·R) like the main head's.
"""
import jittor as jt
from jittor import nn

from .layers import ConvModule, Scale


class SimpleConvHead(nn.Module):
    """cfg: AuxHeadConfig."""

    def __init__(self, cfg):
        super().__init__()

        def tower():
            return nn.ModuleList([
                ConvModule(cfg.input_channel if i == 0 else cfg.feat_channels, cfg.feat_channels, 3, 1, 1, cfg.norm_cfg, cfg.activation)
                for i in range(cfg.stacked_convs)
            ])

        self.cls_convs = tower()
        self.reg_convs = tower()
        self.gfl_cls = nn.Conv2d(cfg.feat_channels, cfg.num_classes, 3, 1, 1)
        self.gfl_reg = nn.Conv2d(cfg.feat_channels, 4 * (cfg.reg_max + 1), 3, 1, 1)
        self.scales = nn.ModuleList([Scale() for _ in cfg.strides])

    def execute(self, features):
        outputs = []
        for x, scale in zip(features, self.scales):
            cls_feat, reg_feat = x, x
            for conv in self.cls_convs:
                cls_feat = conv(cls_feat)
            for conv in self.reg_convs:
                reg_feat = conv(reg_feat)
            out = jt.concat((self.gfl_cls(cls_feat), scale(self.gfl_reg(reg_feat)).float()), dim=1)
            outputs.append(out.reshape(out.shape[0], out.shape[1], -1))
        return jt.concat(outputs, dim=2).permute(0, 2, 1)
