"""AdamW and SGD with upstream's parameter groups, and clipping by global norm.

Sources: `nanodet/optim/builder.py`; Decoupled weight decay (arXiv:1711.05101) and PyTorch's own AdamW and SGD, step by step.
Parameters are kept under their names, so that moments can be copied out and in.
"""
import math
from dataclasses import dataclass

import numpy as np
import jittor as jt

from .detector import file_shape  # differs: Jittor has no 0-d Var
from .layers import BatchNorm2d, GroupNorm
from .operators import switch, update  # differs: on the CPU the arithmetic below is one operator in C++

NORM_LAYERS = (BatchNorm2d, GroupNorm)


@dataclass
class Group:
    """Parameters that share rate and decay."""

    names: list
    lr: float
    initial_lr: float
    weight_decay: float


def named_parameters(model):
    """[(name, tensor)] of everything that is trained, in the model's order."""
    return [(k, v) for k, v in model.state_dict().items() if not v.is_stop_grad()]  # differs: buffers are Vars without gradient


def parameter_groups(model, cfg):
    """Groups of an OptimizerConfig: the first key of `param_level_cfg` contained in a name decides; norms and biases on request.

    Upstream makes one group of every parameter; here those with equal rate and decay share one, which changes no number.
    """
    norm_names = [f"{name}.{kind}" for name, m in model.named_modules() if isinstance(m, NORM_LAYERS) for kind in ("weight", "bias")]
    groups = {}
    for name, _ in named_parameters(model):
        lr, decay = cfg.lr, cfg.decay
        for key, level in cfg.param_level_cfg.items():
            if key in name:
                lr, decay = lr * level.lr_mult, decay * level.decay_mult
                break
        if (cfg.no_norm_decay and name in norm_names) or (cfg.no_bias_decay and name.split(".")[-1] == "bias"):
            decay = 0.0
        groups.setdefault((lr, decay), Group([], lr, lr, decay)).names.append(name)
    return list(groups.values())


def global_norm(gradients):
    """Root of the summed squares of all gradients: a 1-element tensor."""
    gradients = list(gradients)
    if switch.usable(*gradients):
        return update.global_norm(gradients)
    # differs: no root and square in between; float64, because Jittor adds float32 one after the other (20 times PyTorch's error here)
    return jt.concat([jt.sqr(g.float64()).sum() for g in gradients]).sum().sqrt().float32()


def clip_by_norm(gradients, norm, limit):
    """Scale the gradients so that their global norm is at most `limit`; no change where it already is."""
    factor = (limit / (norm + 1e-6)).clamp(None, 1.0)
    return [(g * factor).reshape(g.shape) for g in gradients]


class Optimizer:
    """Shared by both: parameters by name, groups, moments, step counter."""

    moment_names = ()

    def __init__(self, model, cfg):
        self.cfg = cfg
        self.params = dict(named_parameters(model))
        self.groups = parameter_groups(model, cfg)
        self.steps = 0
        # differs: every Var has a gradient unless told otherwise
        self.moments = {kind: {k: jt.zeros_like(v).stop_grad() for k, v in self.params.items()} for kind in self.moment_names}

    def step(self, gradients):
        """Update every parameter from `gradients` (name to tensor) at each group's current rate."""
        self.steps += 1
        for group in self.groups:
            for name in group.names:
                self.update(name, self.params[name], gradients[name], group)

    def state(self):
        """NumPy copies: `steps` and every moment as `KIND/NAME`."""
        state = {"steps": np.asarray(self.steps, np.int64)}
        for kind, moments in self.moments.items():
            # differs: as said above; numpy() copies
            state.update({f"{kind}/{k}": v.numpy().reshape(file_shape(k, v.shape)) for k, v in moments.items()})
        return state

    def load_state(self, state):
        """Take over what `state()` gave."""
        self.steps = int(state["steps"])
        for kind, moments in self.moments.items():
            for k, v in moments.items():
                # differs: an update replaces the Var's value
                v.update(jt.array(np.ascontiguousarray(state[f"{kind}/{k}"]).reshape(v.shape)))


class AdamW(Optimizer):
    moment_names = ("exp_avg", "exp_avg_sq")

    def update(self, name, p, g, group):
        beta1, beta2 = self.cfg.betas
        m, v = self.moments["exp_avg"][name], self.moments["exp_avg_sq"][name]
        # differs: Jittor updates by whole expressions, not in place
        decayed = p * (1 - group.lr * group.weight_decay)  # decay first, on the old value
        m.update(m + (g - m) * (1 - beta1))
        v.update(v * beta2 + g * g * (1 - beta2))
        step_size = group.lr / (1 - beta1 ** self.steps)
        root = v.sqrt() / math.sqrt(1 - beta2 ** self.steps) + self.cfg.eps
        p.update(decayed - m / root * step_size)  # differs: as above


class SGD(Optimizer):
    moment_names = ("momentum",)

    def update(self, name, p, g, group):
        buffer, momentum = self.moments["momentum"][name], self.cfg.momentum
        # differs: no multiply-and-add in one
        g = g + p * group.weight_decay
        if momentum:
            # differs: as above
            buffer.update(buffer * momentum + g if self.steps > 1 else g)
            g = g + buffer * momentum if self.cfg.nesterov else buffer
        p.update(p - g * group.lr)


def build_optimizer(model, cfg):
    """AdamW or SGD of an OptimizerConfig (the configuration reader admits no other name)."""
    return {"AdamW": AdamW, "SGD": SGD}[cfg.name](model, cfg)
