"""One training step in upstream's order, and the whole state of a training as NumPy arrays.

Loss, gradients, clip, learning rate of this step, optimiser, counter + 1, average with the new counter
(`nanodet/trainer/task.py` under its Lightning loop).
"""
from dataclasses import dataclass, field

import numpy as np
import jittor as jt

from .errors import UserError

from .assigner import DynamicSoftLabelAssigner
from .detector import file_shape, load_state, state_arrays  # differs: Jittor has no 0-d Var
from .ema import ExpMovingAverager
from .layers import BatchNorm2d
from .losses import training_losses
from .optim import build_optimizer, clip_by_norm, global_norm
from .operators.update import FusedUpdate  # differs: on the CPU clipping, update and averages are one operator in C++
from .schedule import LearningRate


@dataclass
class StepReport:
    """What one step did: loss terms, Assignments, norm of the gradients before clipping, rate of the first group.

    `gradients` (name to NumPy array, before clipping) only where asked for.
    """

    loss: float
    terms: dict
    assignments: list
    grad_norm: float = None
    lr: float = None
    gradients: dict = field(default=None, repr=False)


class LossScale:
    """Factor on the loss that keeps float16 gradients from vanishing: halved, and the step left out, where they overflow; doubled
    after 2000 steps that fit (PyTorch's GradScaler, which upstream trains with). Off, it is 1 and every step counts."""

    def __init__(self, on):
        self.on, self.value, self.fitting = on, 65536.0 if on else 1.0, 0

    def update(self, finite):
        """Count a step; returns whether its gradients are to be used."""
        if not self.on:
            return True
        self.fitting = self.fitting + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.fitting == 2000:
            self.value, self.fitting = self.value * 2, 0
        return bool(finite)


class TrainingStep:
    """Everything that changes in a training. model: NanoDetPlus; cfg: Config. The model is put into training mode.

    freeze_norm: BatchNorm keeps its statistics and normalises with them.
    """

    def __init__(self, model, cfg, freeze_norm=False):
        self.model, self.cfg, self.freeze_norm = model, cfg, freeze_norm
        self.train_mode()
        self.assigner = DynamicSoftLabelAssigner(cfg.model.arch.head.assigner_cfg)
        self.optimizer = build_optimizer(model, cfg.schedule.optimizer)
        self.schedule = LearningRate(cfg.schedule)
        averager = cfg.model.weight_averager
        self.ema = ExpMovingAverager(model, averager.decay) if averager else None
        self.fused = FusedUpdate(self.optimizer, self.ema, model)  # differs: as said at its import
        self.scale = LossScale(cfg.device.precision == 16 and bool(jt.flags.use_cuda))  # differs: one device for all
        self.epoch, self.global_step = 0, 0

    def train_mode(self):
        """Training mode, BatchNorm excepted where it is frozen."""
        self.model.train()
        if self.freeze_norm:
            for m in self.model.modules():
                if isinstance(m, BatchNorm2d):
                    m.is_train = False  # differs: eval() would stop the gradient of its weight and bias as well

    def half(self):
        """Context of the forward pass with `precision: 16`; the losses stay in float32."""
        # differs: Jittor has no half-precision convolution on the CPU, where 16 means 32 and the trainer says so
        return jt.flag_scope(auto_mixed_precision_level=4 if self.scale.on else 0)

    @property
    def detach(self):
        """Whether the auxiliary branch is cut off from backbone and pyramid: from `detach_epoch` on."""
        return self.epoch >= self.cfg.model.arch.detach_epoch

    def losses(self, batch, evidence=False):
        """(total, terms, Assignments) of a batch as `training_losses` describes it; a forward pass, with statistics updated."""
        arch = self.cfg.model.arch
        images = jt.array(batch["img"])  # differs: nothing here runs in float64
        with self.half():
            raw, aux_raw = self.model.forward_aux(images, self.detach)
        if self.cfg.device.precision == 16:
            raw, aux_raw = raw.float32(), aux_raw.float32()
        terms, assignments = training_losses(
            raw, aux_raw, batch, self.assigner, self.model.head.distribution_project, arch.head, evidence)
        return sum_terms(terms), terms, assignments

    def gradients(self, total):
        """Name to gradient of the loss."""
        names = list(self.optimizer.params)
        # differs: gives zeros where the loss does not depend on a parameter
        return dict(zip(names, jt.grad(total, [self.optimizer.params[k] for k in names])))

    def compute(self, batch, keep_gradients=False, evidence=False):
        """(StepReport, gradients as tensors): forward and backward, no update of any weight."""
        total, terms, assignments = self.losses(batch, evidence)
        gradients = average_gradients(self.gradients(total * self.scale.value if self.scale.on else total))
        if self.scale.on:
            gradients = {k: g / self.scale.value for k, g in gradients.items()}
        norm = global_norm(gradients.values())
        jt.sync_all()  # differs: Jittor is lazy; one run of the whole graph, not one for every number read
        report = StepReport(total.item(), {k: v.item() for k, v in terms.items()}, assignments, norm.item())
        if keep_gradients:
            # differs: Jittor has no 0-d Var; numpy() copies
            report.gradients = {k: g.numpy().reshape(file_shape(k, g.shape)) for k, g in gradients.items()}
        return report, gradients, norm

    def step(self, batch, keep_gradients=False, evidence=False):
        """One whole step; raises UserError, with nothing updated, where the loss or the gradient is not a finite number."""
        report, gradients, norm = self.compute(batch, keep_gradients, evidence)
        fits = self.scale.update(np.isfinite(report.grad_norm))
        check_finite(report, self.global_step, self.scale.on)
        if self.fused.usable():  # differs: the same in one pass over memory
            self.schedule.before_step(self.optimizer.groups, self.global_step)
            report.lr = self.optimizer.groups[0].lr
            self.global_step += 1
            self.fused.step(gradients, norm, self.cfg.grad_clip, self.global_step)
            return report
        if self.cfg.grad_clip > 0:
            gradients = dict(zip(gradients, clip_by_norm(gradients.values(), norm, self.cfg.grad_clip)))
        self.schedule.before_step(self.optimizer.groups, self.global_step)
        report.lr = self.optimizer.groups[0].lr
        if fits:
            self.optimizer.step(gradients)
        self.global_step += 1
        if self.ema:
            self.ema.update(self.model, self.global_step)
        jt.sync_all()  # differs: nothing is left pending, or the averages would never be computed
        return report

    def end_epoch(self):
        """Count the epoch and move the cosine on."""
        self.epoch += 1
        self.schedule.end_epoch(self.optimizer.groups, self.epoch)


def sum_terms(terms):
    """The loss: each head's three terms are added first, then the heads, as upstream does (the order decides the last bit)."""
    values = list(terms.values())
    return (values[0] + values[1] + values[2]) + (values[3] + values[4] + values[5])


def average_gradients(gradients):
    """Mean over the processes of a distributed run; the gradients themselves where there is one process."""
    if jt.in_mpi:
        gradients = {k: g.mpi_all_reduce("mean") for k, g in gradients.items()}  # differs: MPI is part of Jittor
    return gradients


def check_finite(report, step, scaled=False):
    """Raise UserError naming the step and the first term that is NaN or infinite; a scaled loss may overflow in the gradient."""
    values = report.terms if scaled else {**report.terms, "gradient norm": report.grad_norm}
    for name, value in values.items():
        if not np.isfinite(value):
            raise UserError(f"training stopped at step {step}: {name} is {value}; the last checkpoint is intact, "
                            "continue from it with --resume and a lower schedule.optimizer.lr")


def training_state(step):
    """All of a TrainingStep as NumPy arrays: model/NAME, ema/NAME, optimizer/KIND/NAME, optimizer/steps, lr, loss_scale, epoch, global_step."""
    state = {f"model/{k}": v for k, v in state_arrays(step.model).items()}
    if step.ema:
        state.update({f"ema/{k}": v for k, v in step.ema.state().items()})
    state.update({f"optimizer/{k}": v for k, v in step.optimizer.state().items()})
    state["lr"] = np.asarray([g.lr for g in step.optimizer.groups], np.float64)
    state["loss_scale"] = np.asarray([step.scale.value, step.scale.fitting], np.float64)
    state["epoch"] = np.asarray(step.epoch, np.int64)
    state["global_step"] = np.asarray(step.global_step, np.int64)
    return state


def load_training_state(step, state):
    """Take over what `training_state` of either side gave; raises UserError where it belongs to another model or schedule."""
    def part(prefix):
        return {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}

    moments = {f"{kind}/{k}" for kind, ms in step.optimizer.moments.items() for k in ms} | {"steps"}
    groups = step.optimizer.groups
    if set(part("optimizer/")) != moments or len(state["lr"]) != len(groups) or bool(part("ema/")) != bool(step.ema):
        raise UserError("the saved training state belongs to another optimiser, model or averager: "
                        "resume with the configuration the run was started with")
    load_state(step.model, part("model/"))
    if step.ema:
        step.ema.load_state(part("ema/"))
    step.optimizer.load_state(part("optimizer/"))
    for group, lr in zip(groups, state["lr"]):
        group.lr = float(lr)
    step.scale.value, step.scale.fitting = float(state["loss_scale"][0]), int(state["loss_scale"][1])
    step.epoch, step.global_step = int(state["epoch"]), int(state["global_step"])
    jt.sync_all()  # differs: a one-element array still waiting to be copied breaks Jittor's fused code for `x * scale`
