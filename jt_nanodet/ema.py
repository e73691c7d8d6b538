"""Exponential moving average of the weights, as `nanodet/model/weight_averager/ema.py` computes it.

Every parameter and every buffer is averaged, counters included (in float32, then truncated). The decay applies to the *new* value:
it starts near 1 and falls to 1 − `decay`.
"""
import math

import numpy as np
import jittor as jt

from .detector import file_shape  # differs: Jittor has no 0-d Var


class ExpMovingAverager:
    """Starts as a copy of the model's state."""

    def __init__(self, model, decay):
        self.decay = decay
        # differs: every Var has a gradient unless told otherwise
        self.averages = {k: v.detach().clone().stop_grad() for k, v in model.state_dict().items()}

    def factor(self, iteration):
        """Share of the new value in update number `iteration` (from 1)."""
        return self.decay * math.exp(-(1 + iteration) / 2000) + (1 - self.decay)

    def update(self, model, iteration):
        """Move the averages towards the model."""
        new = self.factor(iteration)
        for k, v in model.state_dict().items():
            # differs: an update replaces the Var's value, and its type with it
            self.averages[k].update((self.averages[k] * (1 - new) + v * new).cast(v.dtype))

    def state(self):
        """The averages as NumPy copies, under the model's names and in its order: weights one can load."""
        arrays = {k: v.numpy().reshape(file_shape(k, v.shape)) for k, v in self.averages.items()}
        return {k: v.astype(np.int64) if v.dtype.kind == "i" else v.copy() for k, v in arrays.items()}  # differs: counters are int32 here

    def load_state(self, state):
        """Take over what `state()` gave."""
        for k, v in self.averages.items():
            # differs: as above
            v.update(jt.array(np.ascontiguousarray(state[k]).reshape(v.shape)).cast(v.dtype))
