"""Training batches, drawn ahead by worker processes; the same batches whatever the number of workers and processes.

A batch is a function of (dataset, seed, epoch, batch number): order and samples come from ``sampler``, and a
worker only decides when, not what. Pixels travel through shared memory, everything else through pipes.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jt_nanodet.data.batches import make_batch
from jt_nanodet.data.sampler import epoch_order, shard_batches
from jt_nanodet.data.worker import draw_sample, shared_slots
from jt_nanodet.errors import UserError

_START = "import sys; sys.path.insert(0, sys.argv[1]); from jt_nanodet.data.worker import main; main()"


class DataLoader:
    """Batches of one process out of ``world``.

    ``batch_size`` counts the images of this process. ``workers`` 0 reads in this process. ``skip_unreadable`` puts
    another sample in the place of a picture that cannot be read (default: in train mode); ``skipped`` maps its path to
    the reason, ``skipped_samples`` counts, ``on_skip(path, reason)`` is called once a path. Use as a context manager,
    or call ``close``.
    """

    def __init__(
        self,
        dataset,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        workers: int = 0,
        prefetch: int = 2,
        rank: int = 0,
        world: int = 1,
        divisible: int = 32,
        skip_unreadable: bool | None = None,
        on_skip: Callable[[str, str], None] | None = None,
        timeout: float = 600.0,
    ):
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world} processes")
        self.dataset, self.batch_size, self.seed, self.shuffle, self.drop_last = (
            dataset,
            batch_size,
            seed,
            shuffle,
            drop_last,
        )
        self.workers, self.prefetch, self.rank, self.world, self.divisible = (
            workers,
            max(1, prefetch),
            rank,
            world,
            divisible,
        )
        self.skip_unreadable = dataset.mode == "train" if skip_unreadable is None else skip_unreadable
        self.on_skip, self.timeout = on_skip, timeout
        self.skipped: dict[str, str] = {}
        self.skipped_samples = 0
        self.waited = 0.0  #: seconds the caller has waited for batches
        self._pool: _Pool | None = None
        if drop_last and len(dataset) < batch_size * world:
            raise UserError(
                f"{dataset.source}: {len(dataset)} images do not fill one batch of {batch_size * world}; lower "
                "device.batchsize_per_gpu"
            )

    def __len__(self) -> int:
        """Batches an epoch."""
        whole = self.batch_size * self.world
        return len(self.dataset) // whole if self.drop_last else -(-len(self.dataset) // whole)

    def indices(self, epoch: int) -> list[list[int]]:
        """Dataset indices of each batch of this process in one epoch."""
        order = epoch_order(self.seed, epoch, len(self.dataset), self.shuffle)
        return shard_batches(order, self.batch_size, self.rank, self.world, self.drop_last)

    def epoch(self, number: int, start: int = 0) -> Iterator[dict]:
        """Batches of epoch ``number`` from batch ``start`` on: ``make_batch``'s dictionaries."""
        parts = [p for p in self.indices(number)[start:] if p]
        source = self._drawn_here(number, parts) if self.workers == 0 else self._drawn_ahead(number, parts)
        while True:
            began = time.perf_counter()
            batch = next(source, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _drawn_here(self, epoch: int, parts: list[list[int]]) -> Iterator[dict]:
        for part in parts:
            drawn = [draw_sample(self.dataset, self.seed, epoch, i, self.skip_unreadable) for i in part]
            self._note(skipped for _, skipped in drawn)
            yield make_batch([sample for sample, _ in drawn], part, self.divisible)

    def _drawn_ahead(self, epoch: int, parts: list[list[int]]) -> Iterator[dict]:
        if self._pool is None:
            self._pool = _Pool(self)
        pool = self._pool
        pool.drain()  # an abandoned epoch may still be writing into the slots
        tickets: list[int] = []
        for n in range(len(parts) + self.prefetch):
            if n >= self.prefetch:
                part = parts[n - self.prefetch]
                drawn = pool.collect(tickets[n - self.prefetch])
                self._note(skipped for _, skipped in drawn)
                # make_batch copies the pixels out of the slot, which may then be filled again
                batch = make_batch([sample for sample, _ in drawn], part, self.divisible)
            if n < len(parts):
                tickets.append(pool.submit(epoch, n % self.prefetch, parts[n]))
            if n >= self.prefetch:
                yield batch

    def _note(self, lists) -> None:
        for skipped in lists:
            for path, reason in skipped:
                self.skipped_samples += 1
                if path not in self.skipped:
                    self.skipped[path] = reason
                    if self.on_skip is not None:
                        self.on_skip(path, reason)

    def skipped_summary(self) -> str | None:
        """One line about unreadable pictures for the end of a run, or None when there were none."""
        if not self.skipped:
            return None
        names = ", ".join(f"{p} ({r})" for p, r in list(self.skipped.items())[:5])
        more = f" and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
        count = f"{len(self.skipped)} images could not be read and were replaced {self.skipped_samples} times"
        return f"{count}: {names}{more}"

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Pool:
    """The worker processes of one loader, the memory they share with it, and the replies that are under way."""

    def __init__(self, loader: DataLoader):
        config = loader.dataset.config
        largest = max(1.0, *(config.multi_scale or (1.0,)))
        width, height = (int(s * largest) + config.pipeline.divisible for s in config.input_size)
        self.batch_size, self.timeout, slots = loader.batch_size, loader.timeout, loader.prefetch
        floats = 3 * width * height
        self.fd = _shared_file(slots * loader.batch_size * floats * 4)
        self.memory = shared_slots(self.fd, slots, loader.batch_size, floats)
        self.replies: queue.Queue = queue.Queue()
        self.under_way: dict[int, tuple[int, list, int]] = {}  # ticket -> (replies to come, samples by place, slot)
        self.failed: dict[int, Exception] = {}
        self.next_ticket = 0
        settings = pickle.dumps(
            {
                "path": sys.path,
                "dataset": pickle.dumps(loader.dataset, 5),
                "fd": self.fd,
                "slots": slots,
                "batch_size": loader.batch_size,
                "floats": floats,
                "seed": loader.seed,
                "skip_unreadable": loader.skip_unreadable,
            },
            5,
        )
        root = str(Path(__file__).resolve().parents[2])
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.processes: list[subprocess.Popen] = []
        try:
            for number in range(loader.workers):
                process = subprocess.Popen(
                    [sys.executable, "-c", _START, root],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=[self.fd],
                    env=env,
                )
                self.processes.append(process)
                self._send(process, number, settings)
                threading.Thread(target=self._listen, args=(number, process), daemon=True).start()
        except BaseException:
            self.close()
            raise

    def _listen(self, number: int, process: subprocess.Popen) -> None:
        try:
            while True:
                self.replies.put((number, pickle.load(process.stdout)))
        except Exception:  # the pipe ended, in the middle of a reply or between two
            self.replies.put((number, None))

    def _send(self, process: subprocess.Popen, number: int, message: bytes) -> None:
        try:
            process.stdin.write(message)
            process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._death(number) from None

    def submit(self, epoch: int, slot: int, indices: list[int]) -> int:
        """Deal the places of one batch out to the workers; returns the batch's ticket."""
        ticket = self.next_ticket
        self.next_ticket += 1
        count = min(len(self.processes), len(indices))
        self.under_way[ticket] = (count, [None] * len(indices), slot)
        for k in range(count):
            number = (ticket + k) % len(self.processes)
            places = list(enumerate(indices))[k::count]
            self._send(self.processes[number], number, pickle.dumps((ticket, epoch, slot, places), 5))
        return ticket

    def _receive(self) -> None:
        try:
            number, message = self.replies.get(timeout=self.timeout)
        except queue.Empty:
            raise UserError(
                f"no data worker answered for {self.timeout:.0f} s; check the disk the images lie on, or set "
                "device.workers_per_gpu: 0"
            ) from None
        if message is None:
            raise self._death(number)
        ticket, reply = message
        to_come, samples, slot = self.under_way[ticket]
        if isinstance(reply, Exception):
            self.failed.setdefault(ticket, reply)
        else:
            for place, sample, skipped in reply:
                samples[place] = (sample, skipped)
        self.under_way[ticket] = (to_come - 1, samples, slot)

    def collect(self, ticket: int) -> list[tuple[dict, list]]:
        """Wait for a batch; its samples in order, their pixels as views of the shared memory."""
        while self.under_way[ticket][0]:
            self._receive()
        _, samples, slot = self.under_way.pop(ticket)
        if ticket in self.failed:
            raise self.failed.pop(ticket)
        for place, (sample, _) in enumerate(samples):
            if isinstance(sample["img"], tuple):
                shape = sample["img"]
                sample["img"] = self.memory[slot, place, : int(np.prod(shape))].reshape(shape)
        return samples

    def drain(self) -> None:
        """Wait for everything under way and forget it."""
        while any(to_come for to_come, _, _ in self.under_way.values()):
            self._receive()
        self.under_way.clear()
        self.failed.clear()

    def _death(self, number: int) -> UserError:
        process = self.processes[number]
        try:
            code = process.wait(5)
        except subprocess.TimeoutExpired:
            code = None
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        hint = ", often for lack of memory" if code == -9 else ""
        return UserError(
            f"data worker {number} (process {process.pid}) ended unasked ({how}{hint}); see its message above, or "
            "set device.workers_per_gpu to a smaller number"
        )

    def close(self) -> None:
        for process in self.processes:
            try:
                process.stdin.close()
            except OSError:
                pass
        for process in self.processes:
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _shared_file(size: int) -> int:
    """File descriptor of ``size`` bytes of memory without a name, so that nothing is left behind however the run "
    "ends."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("batches", 0)
    else:
        with tempfile.TemporaryFile() as f:
            fd = os.dup(f.fileno())
    os.ftruncate(fd, size)
    return fd
