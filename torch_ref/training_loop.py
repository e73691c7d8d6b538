"""One run: epochs of training steps, validation with averaged weights, checkpoints that survive a kill.

The loop of `nanodet/trainer/task.py` under Lightning. A run's folder holds `model_last` and `model_best` (averaged weights, arrays alone),
training_state.npz (everything `--resume` needs, written after every epoch), logs.txt, log.jsonl, TensorBoard scalars, loss.png, map.png.
"""
import dataclasses
import os
import signal
import time

import numpy as np
import torch

from jt_nanodet.checkpoint import read_weights, replacing
from jt_nanodet.data import build_dataset
from jt_nanodet.data.evaluator import CocoEvaluator, detections_to_coco
from jt_nanodet.data.loader import DataLoader
from jt_nanodet.errors import EXIT_INTERRUPTED
from jt_nanodet.run import files
from jt_nanodet.run.curves import write_curves
from jt_nanodet.run.log import RunLog, TimeLeft
from jt_nanodet.run.start import starting_weights

from .decode import decode
from .detector import build_model, load_state, state_arrays
from .losses import alone, training_losses
from .postprocess import multiclass_nms
from .tester import read_torch  # differs: a .pth is PyTorch's
from .training_step import TrainingStep, load_training_state, sum_terms, training_state

SIDE, SUFFIX = "pytorch", ".pth"


class Trainer:
    """One run. opts: Options; rank and world: this process and how many there are."""

    def __init__(self, opts, rank=0, world=1):
        self.opts, self.config, self.rank, self.world = opts, opts.config, rank, world
        self.folder = files.make_folder(self.config.save_dir)
        schedule, device = self.config.schedule, self.config.device
        classes = self.config.model.arch.head.num_classes
        train, val = (build_dataset(getattr(self.config.data, side), mode, classes) for side, mode in (("train", "train"), ("val", "test")))
        self.batches = DataLoader(train, device.batchsize_per_gpu, seed=opts.seed, workers=device.workers_per_gpu, rank=rank, world=world,
                                  on_skip=lambda path, why: self.log.info(f"Skipping {path}: {why}"))
        self.val_batches = DataLoader(val, device.batchsize_per_gpu, shuffle=False, drop_last=False, workers=device.workers_per_gpu)
        self.per_epoch = len(self.batches)
        self.total = schedule.total_epochs * self.per_epoch
        if opts.max_steps:
            self.total = min(self.total, opts.max_steps)
        self.fingerprint = files.fingerprint(self.config, opts.seed, device.batchsize_per_gpu * world, len(train))
        self.notes = {"fingerprint": self.fingerprint, "batch": 0, "sums": {}, "best": -1.0, "best_epoch": 0, "validated": 0}
        self.stop_signal = None
        self.log = None

    def run(self):
        """Train to the end; returns the exit code."""
        if self.rank == 0:
            files.clear_leftovers(self.folder)
        saved = files.read_state(self.folder) if self.opts.resume else None
        if saved:
            files.check_same_run(saved[1]["fingerprint"], self.fingerprint)
        self.log = RunLog(self.folder, header(self.opts, self.world), resumed=bool(saved), silent=self.rank > 0)
        try:
            self.prepare(saved)
            with catch_signals(self):
                return self.loop()
        finally:
            self.batches.close()
            self.val_batches.close()
            self.log.close()

    def prepare(self, saved):
        """Model, optimiser and averages, at the start or where the run was interrupted."""
        for note in (*self.config.warnings, *self.opts.notes, *self.batches.dataset.warnings, *precision_note(self.config, self.opts.device)):
            self.log.info(note)
        model = build_model(self.config.model.arch)
        shapes = {k: v.shape for k, v in state_arrays(model).items()}
        given = read_any(self.opts.load_weights) if self.opts.load_weights and not saved else None
        weights, remarks = starting_weights(shapes, self.opts.seed, given, self.config.model.arch.head.num_classes)
        for remark in remarks:
            self.log.info(remark)
        load_state(model, weights)
        self.step = TrainingStep(model.to(self.opts.device), self.config, self.opts.freeze_norm)
        self.averaged = build_model(self.config.model.arch).to(self.opts.device) if self.step.ema else None
        if saved:
            state, self.notes = saved
            load_training_state(self.step, state)
            self.log.info(f"Resumed at epoch {self.step.epoch + 1}, step {self.step.global_step}")
        else:
            self.save()  # so that there is something to go on from, whenever the run ends

    def loop(self):
        """All epochs that are left."""
        left = TimeLeft(self.total)
        epochs, intervals = self.config.schedule.total_epochs, self.config.schedule.val_intervals
        while True:
            if self.notes["validated"] < self.step.epoch and not self.notes["batch"]:
                if self.step.epoch % intervals == 0 or self.step.epoch == epochs:
                    self.validate()
                self.notes["validated"] = self.step.epoch
                self.save()
            if self.step.epoch >= epochs or self.step.global_step >= self.total:
                break
            if self.epoch(left):
                self.save()
                self.log.info(f"Interrupted at step {self.step.global_step}; go on with --resume")
                return EXIT_INTERRUPTED
        for line in filter(None, (self.batches.skipped_summary(),)):
            self.log.info(line)
        if self.notes["best_epoch"]:
            self.log.info(f"Best mAP: {self.notes['best']:.4f} at epoch {self.notes['best_epoch']}")
        if self.rank == 0:
            write_curves(self.folder)
        return 0

    def epoch(self, left):
        """One epoch, or what is left of it; returns whether a signal stopped it."""
        step, notes, interval = self.step, self.notes, self.config.log.interval
        began = time.perf_counter()
        for batch in self.batches.epoch(step.epoch, notes["batch"]):
            waited = time.perf_counter() - began
            number = step.global_step
            report = step.step(batch)
            notes["batch"] += 1
            for name, value in report.terms.items():
                notes["sums"][name] = notes["sums"].get(name, 0.0) + value
            where = {"epoch": step.epoch + 1, "epochs": self.config.schedule.total_epochs, "step": number,
                     "batch": notes["batch"], "batches": self.per_epoch}
            if number % interval == 0:
                self.log.losses("Train", where, report.lr, report.terms)
            seconds = time.perf_counter() - began
            self.log.row({"type": "train", **where, "lr": report.lr, "loss": report.loss, **report.terms, "grad_norm": report.grad_norm,
                          "seconds": seconds, "data_seconds": waited})
            self.log.progress(f"epoch {where['epoch']}/{where['epochs']} step {notes['batch']}/{self.per_epoch} loss {report.loss:.4f} "
                              f"{seconds:.2f} s/step, {left.text(step.global_step)}")
            began = time.perf_counter()
            if step.global_step >= self.total and notes["batch"] < self.per_epoch:
                self.save()
                return False
            if self.stop_signal is not None:
                break
        if notes["batch"] < self.per_epoch:
            return True
        means = {k: v / self.per_epoch for k, v in notes["sums"].items()}
        step.end_epoch()
        notes["batch"], notes["sums"] = 0, {}
        self.log.epoch(step.epoch, self.config.schedule.total_epochs, means, report.lr)
        self.save()
        return self.stop_signal is not None

    def weights(self):
        """What validation and checkpoints use: the averages, or the weights themselves where nothing is averaged."""
        return self.step.ema.state() if self.step.ema else state_arrays(self.step.model)

    def validate(self):
        """COCO's numbers of the averaged weights; keeps the best. Only the first of several processes does it."""
        if self.rank > 0:
            return
        model, arch = self.averaged, self.config.model.arch
        if model is None:
            model = self.step.model.eval()
        else:
            load_state(model, self.weights())
        dataset, detections, lr = self.val_batches.dataset, [], self.step.optimizer.groups[0].lr
        for number, batch in enumerate(self.val_batches.epoch(0)):
            with torch.no_grad():
                raw, aux_raw = model.forward_aux(torch.from_numpy(batch["img"]).to(self.opts.device), True)
                terms, _ = training_losses(raw, aux_raw, batch, self.step.assigner, model.head.distribution_project, arch.head, normalise=alone)
                boxes, scores = decode(raw, model.head.distribution_project, arch.head, batch["img"].shape[2:])
            boxes, scores = boxes.cpu(), scores.cpu()
            for i, (info, matrix) in enumerate(zip(batch["img_info"], batch["warp_matrix"])):
                dets, labels, _ = multiclass_nms(boxes[i], scores[i])
                detections += detections_to_coco(np.asarray(dets), np.asarray(labels), info, matrix, dataset.cat_ids)
            if number % self.config.log.interval == 0:
                where = {"epoch": self.step.epoch, "epochs": self.config.schedule.total_epochs, "step": self.step.global_step,
                         "batch": number + 1, "batches": len(self.val_batches)}
                self.log.losses("Val", where, lr, {k: v.item() for k, v in terms.items()})
                self.log.row({"type": "val_loss", **where, "loss": sum_terms(terms).item(), **{k: v.item() for k, v in terms.items()}})
            self.log.progress(f"validation {number + 1}/{len(self.val_batches)}")
        if self.averaged is None:
            self.step.train_mode()
        metrics = CocoEvaluator(dataset).evaluate(detections)
        self.log.metrics(self.step.epoch, self.step.global_step, metrics)
        metric = metrics[self.config.evaluator.save_key]
        if metric > self.notes["best"]:
            self.notes["best"], self.notes["best_epoch"] = metric, self.step.epoch
            self.log.info(f"Saving model to {self.folder / f'model_best{SUFFIX}'}")
            write_model(self.folder / f"model_best{SUFFIX}", self.weights())

    def save(self):
        """The last checkpoint: first the state to resume from, then the weights."""
        if self.rank > 0:
            return
        files.write_state(self.folder, training_state(self.step), self.notes)
        write_model(self.folder / f"model_last{SUFFIX}", self.weights())


class catch_signals:
    """Ctrl-C and SIGTERM end the run after the step under way, with everything saved; a second Ctrl-C ends it at once."""

    def __init__(self, trainer):
        self.trainer, self.before = trainer, {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self.received)

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def received(self, number, frame):
        if self.trainer.stop_signal is not None:
            raise KeyboardInterrupt
        self.trainer.stop_signal = number
        self.trainer.log.info("Stopping after this step; press Ctrl-C again to stop at once")


def header(opts, world):
    """What the JSONL log begins with; the hash leaves the run's folder out, so that two runs of one configuration have one hash."""
    same = dataclasses.replace(opts.config, save_dir="")
    return {"side": SIDE, "config": os.path.basename(opts.path), "config_sha256": same.sha256(), "seed": opts.seed, "device": opts.device,
            "processes": world, "precision": opts.config.device.precision, "total_epochs": opts.config.schedule.total_epochs,
            "threads": torch.get_num_threads(), "versions": {"torch": torch.__version__, "numpy": np.__version__}}


def precision_note(config, device):
    """What `precision: 16` means on this device."""
    if config.device.precision == 16 and device == "cpu":
        yield "precision 16 on the CPU: bfloat16 convolutions, float32 weights and losses"


def read_any(path):
    """Weights of a .pth, .npz or .pkl file."""
    return read_weights(path) if str(path).endswith((".npz", ".pkl")) else read_torch(path)


def write_model(path, weights):
    """A state dict alone, as upstream's .pth holds it."""
    with replacing(path) as file:
        torch.save({"state_dict": {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}}, file)
