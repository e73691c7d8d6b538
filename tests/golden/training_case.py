"""One golden file replayed by one side: what `test_golden_training.py` needs, and the limits it compares with.

Upstream's fp32 gradients are not a fixed number: a pre-activation within one rounding of 0 falls on either side of LeakyReLU's kink,
and on a randomly weighted network of 60 layers that moves some gradients by a per cent; moving every pixel by one ULP does the same. So
where a gradient is not within the constant, it must be as near to a float64 run of the reference as the golden file is; a decision
that differs must lie within rounding of its other outcome, and float64 must side with the golden file.
"""
import dataclasses
import importlib
import importlib.util
import os
from pathlib import Path

import numpy as np

from jt_nanodet.config import STAGE_CHANNELS, load_config

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "golden"
FOLDER = Path(os.environ.get("GOLDEN_DIR") or SHARED)
FILES = sorted(FOLDER.glob("nanodet-plus-*.npz"))
SIDES = ("torch_ref", "jt_nanodet")

LOSS = 1e-5  # relative; also parameters and averages after five steps
NORM = 1e-4  # relative, of a gradient's norm
RATE = 1e-12  # relative
SPREADS = 4  # a difference may be this many times what one ULP on the pixels does: two sides, each rounding in every layer
AS_GOOD = 2  # an error against float64 may be this many times that of upstream's own fp32 (the rule of flash-attention's tests)
UNSTEADY = 0.05  # where upstream's own error is larger, nothing can be judged
NOISE = 1e-6  # a gradient smaller than this share of the global norm is 0 but for rounding (a bias before BatchNorm)


def golden_rule():
    """The module that repeats weights, images and boxes."""
    path = next(p for p in (FOLDER / "golden_rule.py", SHARED / "golden_rule.py") if p.is_file())
    spec = importlib.util.spec_from_file_location("golden_rule", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_for(header):
    """The configuration a header names, with its class count and its changes to the backbone."""
    config = load_config(ROOT / "configs" / f"{header['config']}.yml")
    arch, count = config.model.arch, header["num_classes"]
    backbone = dataclasses.replace(arch.backbone, **header["backbone_overrides"])
    channels = STAGE_CHANNELS[backbone.model_size]
    if backbone.with_last_conv:
        channels = (*channels[:2], 1024)
    arch = dataclasses.replace(
        arch, backbone=backbone,
        fpn=dataclasses.replace(arch.fpn, in_channels=tuple(channels[stage - 2] for stage in backbone.out_stages)),
        head=dataclasses.replace(arch.head, num_classes=count),
        aux_head=dataclasses.replace(arch.aux_head, num_classes=count))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, arch=arch))


def one_ulp(images, seed):
    """Every pixel moved to a neighbouring float, up or down by a seeded coin."""
    up = np.random.RandomState(seed).rand(*images.shape) < 0.5
    return np.nextafter(images, np.where(up, np.inf, -np.inf).astype(np.float32))


def relative(got, want):
    return float(np.max(np.abs(np.asarray(got, np.float64) - want) / np.maximum(np.abs(want), 1e-300)))


def distance(got, want):
    """Relative L2."""
    return float(np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(np.asarray(want, np.float64)))


class Case:
    """One golden file on one side (or the float64 reference)."""

    def __init__(self, path, side, double=False):
        if side == "jt_nanodet":
            from jt_nanodet import runtime
            runtime.setup()
        self.rule = golden_rule()
        self.header, self.arrays = self.rule.load(path)
        self.config = config_for(self.header)
        self.detector = importlib.import_module(f"{side}.detector")
        self.step_module = importlib.import_module(f"{side}.training_step")
        self.model = self.detector.build_model(self.config.model.arch)
        self.double = double
        boxes = self.rule.boxes(self.header)
        self.batch = {"img": self.rule.images(self.header), "gt_bboxes": [b for b, _ in boxes], "gt_labels": [x for _, x in boxes],
                      "gt_bboxes_ignore": None}
        self.cache = {}

    def fresh(self, epoch=0):
        """A TrainingStep at the golden weights."""
        self.detector.load_state(self.model, self.rule.state(self.header))
        if self.double:
            self.model.double()
        step = self.step_module.TrainingStep(self.model, self.config)
        step.epoch = epoch
        return step

    def backward(self, regime, moved=0):
        """(StepReport with gradients, state after the forward pass); a `moved` other than 0 seeds a change of each pixel by one ULP."""
        key = (regime, moved)
        if key not in self.cache:
            step = self.fresh(0 if regime == "attached" else self.config.model.arch.detach_epoch)
            batch = dict(self.batch, img=one_ulp(self.batch["img"], moved)) if moved else self.batch
            report, _, _ = step.compute(batch, keep_gradients=True, evidence=True)
            self.cache[key] = report, self.detector.state_arrays(self.model)
        return self.cache[key]

    def five_steps(self):
        """(reports, weights, averages)."""
        if "steps" not in self.cache:
            step = self.fresh()
            reports = [step.step(self.batch, evidence=True) for _ in range(5)]
            self.cache["steps"] = reports, self.detector.state_arrays(self.model), step.ema.state()
        return self.cache["steps"]

    def norms(self, report):
        return np.array([np.linalg.norm(report.gradients[k].astype(np.float64)) for k in self.header["parameter_names"]])


def nearest_flip(evidence, other):
    """(margin, rounding) of the decision of one image that is nearest to its other outcome, measured in its own rounding.

    `other` is the same image computed in another way; a decision's rounding is how far the two are apart in what it rests on.
    Decisions: a box's sum of overlaps against the next whole number (one prior more or fewer), the last prior a box takes against
    the first it does not, a prior's two cheapest boxes; costs relatively.
    """
    sums, k = evidence.topk_sum, np.clip(evidence.topk_sum.astype(np.int64), 1, len(evidence.cost))
    pairs = list(zip(np.abs(sums - np.round(sums)), np.abs(sums - other.topk_sum)))
    moved = np.abs(evidence.cost - other.cost) / np.abs(evidence.cost)
    order = np.argsort(evidence.cost, axis=0, kind="stable")
    for g in np.flatnonzero(k < len(order)):
        last, first = order[k[g] - 1, g], order[k[g], g]
        gap = (evidence.cost[first, g] - evidence.cost[last, g]) / abs(evidence.cost[first, g])
        pairs.append((gap, moved[last, g] + moved[first, g]))
    if evidence.cost.shape[1] > 1:
        cheapest = np.argsort(evidence.cost, axis=1, kind="stable")[:, :2]
        rows = np.arange(len(cheapest))
        one, two = evidence.cost[rows, cheapest[:, 0]], evidence.cost[rows, cheapest[:, 1]]
        pairs += zip((two - one) / np.abs(two), moved[rows, cheapest[:, 0]] + moved[rows, cheapest[:, 1]])
    return min(((float(m), float(r)) for m, r in pairs), key=lambda pair: pair[0] / max(pair[1], 1e-300))
