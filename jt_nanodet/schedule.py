"""Learning rate as upstream's trainer moves it: warm-up by step, cosine by epoch, each blind to the other.

Sources: `optimizer_step` of `nanodet/trainer/task.py` and the recursive form of PyTorch's CosineAnnealingLR, which multiplies the
current rate. Warm-up overwrites that rate, so the two interact where warm-up outlives an epoch. Plain floats, no tensors.
"""
import math


class LearningRate:
    """cfg: ScheduleConfig. Works on groups that have `lr` and `initial_lr`."""

    def __init__(self, cfg):
        self.warmup, self.cosine = cfg.warmup, cfg.lr_schedule

    def before_step(self, groups, global_step):
        """Warm-up: holds while the counter before the step is at most `steps`."""
        if global_step > self.warmup.steps:
            return
        factor = self.factor(global_step)
        for group in groups:
            group.lr = group.initial_lr * factor

    def factor(self, global_step):
        """Share of the full rate in warm-up step `global_step`; the first is `ratio`."""
        ratio = self.warmup.ratio
        left = 1 - global_step / self.warmup.steps if self.warmup.steps else 0.0
        if self.warmup.name == "constant":
            return ratio
        if self.warmup.name == "linear":
            return 1 - left * (1 - ratio)
        return ratio ** left

    def end_epoch(self, groups, epoch):
        """Cosine: called once after epoch number `epoch` (from 1)."""
        t_max, low = self.cosine.T_max, self.cosine.eta_min
        for group in groups:
            if (epoch - 1 - t_max) % (2 * t_max) == 0:
                group.lr += (group.initial_lr - low) * (1 - math.cos(math.pi / t_max)) / 2
            else:
                now, before = (1 + math.cos(math.pi * e / t_max) for e in (epoch, epoch - 1))
                group.lr = now / before * (group.lr - low) + low
