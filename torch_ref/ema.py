"""Exponential moving average of the weights, as `nanodet/model/weight_averager/ema.py` computes it.

Every parameter and every buffer is averaged, counters included (in float32, then truncated). The decay applies to the *new* value:
it starts near 1 and falls to 1 − `decay`.
"""
import math

import numpy as np
import torch


class ExpMovingAverager:
    """Starts as a copy of the model's state."""

    def __init__(self, model, decay):
        self.decay = decay
        self.averages = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def factor(self, iteration):
        """Share of the new value in update number `iteration` (from 1)."""
        return self.decay * math.exp(-(1 + iteration) / 2000) + (1 - self.decay)

    @torch.no_grad()  # differs: Jittor's updates record no gradient
    def update(self, model, iteration):
        """Move the averages towards the model."""
        new = self.factor(iteration)
        for k, v in model.state_dict().items():
            self.averages[k].copy_(self.averages[k] * (1 - new) + v * new)

    def state(self):
        """The averages as NumPy copies, under the model's names and in its order: weights one can load."""
        return {k: v.cpu().numpy().copy() for k, v in self.averages.items()}

    def load_state(self, state):
        """Take over what `state()` gave."""
        for k, v in self.averages.items():
            v.copy_(torch.from_numpy(np.ascontiguousarray(state[k]).reshape(v.shape)))
