"""NanoDetPlusHead: one small head per pyramid level, as `nanodet/model/head/nanodet_plus_head.py` builds it.

C classes, R = reg_max + 1 bins a side, P priors over all levels: raw output (B, P, C + 4·R), class logits first.
"""
import jittor as jt
from jittor import nn

from .layers import ConvModule, DepthwiseConvModule, Integral


class NanoDetPlusHead(nn.Module):
    """cfg: HeadConfig. The head ends with raw logits; decoding and losses live in their own files."""

    def __init__(self, cfg):
        super().__init__()
        self.distribution_project = Integral(cfg.reg_max)
        conv = ConvModule if cfg.conv_type == "Conv" else DepthwiseConvModule

        def tower():
            return nn.ModuleList([
                conv(cfg.input_channel if i == 0 else cfg.feat_channels, cfg.feat_channels, cfg.kernel_size,
                     1, cfg.kernel_size // 2, cfg.norm_cfg, cfg.activation)
                for i in range(cfg.stacked_convs)
            ])

        self.cls_convs = nn.ModuleList([tower() for _ in cfg.strides])
        self.gfl_cls = nn.ModuleList([
            nn.Conv2d(cfg.feat_channels, cfg.num_classes + 4 * (cfg.reg_max + 1), 1, 1, 0) for _ in cfg.strides
        ])

    def execute(self, features):
        outputs = []
        for feat, convs, gfl_cls in zip(features, self.cls_convs, self.gfl_cls):
            for conv in convs:
                feat = conv(feat)
            out = gfl_cls(feat)
            outputs.append(out.reshape(out.shape[0], out.shape[1], -1))
        return jt.concat(outputs, dim=2).permute(0, 2, 1)
