"""Norm of the gradients, and clipping, AdamW and moving average in one pass (update.h; twin: update_reference.py).

The tensors are updated in place, in their own memory: hundreds of small operations of Jittor's become one, and nothing is copied. So
everything that is to see the old values must have been computed before; `jt.sync_all` sees to that.
"""
import math

import numpy as np
import jittor as jt

from . import switch
from .native import call

FILES = ("update.h",)
ROWS = "const Row* rows = reinterpret_cast<const Row*>(in0_p); const int number = in0_shape0;\n"


def words(array):
    """The bytes of an array of 64-bit numbers as int32: Jittor's `array` would round the numbers themselves."""
    return jt.array(np.ascontiguousarray(array).view(np.int32))


def table(rows):
    """(N, 7) int64, as `words`, of (gradient, parameter, first moment, second moment, average), any of them None but one."""
    found = np.zeros((len(rows), 7), np.int64)
    for line, row in zip(found, rows):
        line[:5] = [0 if t is None else t.raw_ptr for t in row]
        one = next(t for t in row if t is not None)
        line[5:] = one.numel(), one.dtype == "int32"
    return words(found)


def global_norm(gradients):
    """Root of the summed squares of all gradients, float64 inside: a 1-element tensor. Everything pending is computed first."""
    jt.sync_all()
    gradients = list(gradients)
    kept = table([(g, None, None, None, None) for g in gradients])
    found = call(FILES, ROWS + "out0_p[0] = norm(rows, number);", [kept], [[1]])[0]
    found.sync()  # while the gradients are certainly there
    return found


def unshared(held):
    """Give every tensor memory of its own: Jittor lets copies share theirs until one of them changes."""
    seen = set()
    for t in held:
        if t.raw_ptr in seen:
            t.update(jt.array(t.numpy().copy()))
            t.sync()
        seen.add(t.raw_ptr)


class FusedUpdate:
    """Clipping, AdamW and averages of a TrainingStep. Gradients, weights, moments and averages stay where they are and keep their names."""

    def __init__(self, optimizer, ema, model):
        self.optimizer, self.ema, self.model = optimizer, ema, model

    def usable(self):
        """Whether one pass can do it: AdamW, and tensors the operators compute on."""
        return self.optimizer.moment_names == ("exp_avg", "exp_avg_sq") and switch.usable(*self.optimizer.params.values())

    def step(self, gradients, norm, limit, iteration):
        """One update, as clip_by_norm, Optimizer.step and ExpMovingAverager.update do it; limit 0 clips nothing, `iteration` counts from 1."""
        optimizer, cfg = self.optimizer, self.optimizer.cfg
        optimizer.steps += 1
        beta1, beta2 = cfg.betas
        averages = self.ema.averages if self.ema else {}
        moments = [optimizer.moments[kind] for kind in optimizer.moment_names]
        jt.sync_all()
        rows, decay, size = [], [], []
        for group in optimizer.groups:
            for name in group.names:
                rows.append((gradients[name], optimizer.params[name], moments[0][name], moments[1][name], averages.get(name)))
                decay.append(1 - group.lr * group.weight_decay)
                size.append(group.lr / (1 - beta1 ** optimizer.steps))
        if averages:
            rows += [(None, t, None, None, averages[k]) for k, t in self.model.state_dict().items() if k not in optimizer.params]
        unshared([t for row in rows for t in row[1:] if t is not None])
        share = self.ema.factor(iteration) if self.ema else 0.0
        unused = [0.0] * (len(rows) - len(decay))  # of buffers, which are averaged and nothing else
        kept = [table(rows), words(np.array(decay + unused)), words(np.array(size + unused))]
        done = call(FILES, ROWS + """
            const float limit = float(data["limit"]), clip = limit > 0 ? std::min(limit / (in3_p[0] + 1e-6f), 1.0f) : 1.0f;
            const double b1 = data["beta1"], b2 = data["beta2"], share = data["share"];
            update(rows, reinterpret_cast<const double*>(in1_p), reinterpret_cast<const double*>(in2_p), number, {clip, float(b1), float(1 - b1), float(b2), float(1 - b2), float(data["eps"]), float(data["root"]),
                                                float(1 - share), float(share)});
            out0_p[0] = 1;
            """, [*kept, norm], [[1]], limit=limit, beta1=beta1, beta2=beta2, eps=cfg.eps, root=math.sqrt(1 - beta2 ** optimizer.steps), share=share)[0]
        done.sync()
