"""One data worker: a bare Python process that draws samples and writes their pixels into memory shared with the loader.

It is a new program, not a fork, so it holds nothing of the framework, the GPU or MPI of the process it serves, and it
imports neither framework. It ends when its input ends, hence also when the process it serves is killed.

Input, pickled one after another: a settings dictionary, then tasks (ticket, epoch, slot, [(place, index), …]).
Output: one reply a task, (ticket, [(place, sample, skipped), …]) or (ticket, exception).
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import sys

import numpy as np

from jt_nanodet.data.images import UnreadableImage
from jt_nanodet.data.sampler import replacement_index, sample_seed
from jt_nanodet.errors import UserError

#: Unreadable pictures in a row after which the data set is called broken.
MAX_REPLACEMENTS = 20


def draw_sample(
    dataset, run_seed: int, epoch: int, index: int, skip_unreadable: bool
) -> tuple[dict, list[tuple[str, str]]]:
    """The sample of (run, epoch, index) and the unreadable pictures met, as (path, reason).

    With ``skip_unreadable`` another sample, fixed by the same three numbers, takes the place of an unreadable one.
    """
    skipped = []
    for attempt in range(MAX_REPLACEMENTS + 1):
        at = index if attempt == 0 else replacement_index(run_seed, epoch, index, attempt, len(dataset))
        try:
            return dataset.draw(at, sample_seed(run_seed, epoch, index, attempt)), skipped
        except UnreadableImage as error:
            if not skip_unreadable:
                raise
            skipped.append((error.path, error.reason))
    raise UserError(
        f"{len(skipped)} images drawn in a row cannot be read (the last: {skipped[-1][0]}, {skipped[-1][1]}); "
        "check img_path and the files in it"
    )


def shared_slots(fd: int, slots: int, batch_size: int, floats: int) -> np.ndarray:
    """View (slots, batch_size, floats) float32 of the memory behind a file descriptor."""
    return np.frombuffer(mmap.mmap(fd, slots * batch_size * floats * 4), np.float32).reshape(slots, batch_size, floats)


def serve(source, sink) -> None:
    """Answer tasks until the input ends."""
    settings = pickle.load(source)
    sys.path[:] = settings["path"]
    dataset = pickle.loads(settings["dataset"])
    memory = shared_slots(settings["fd"], settings["slots"], settings["batch_size"], settings["floats"])
    while True:
        try:
            ticket, epoch, slot, places = pickle.load(source)
        except EOFError:
            return
        try:
            reply = []
            for place, index in places:
                sample, skipped = draw_sample(dataset, settings["seed"], epoch, index, settings["skip_unreadable"])
                pixels = sample["img"]
                if pixels.size <= settings["floats"]:
                    memory[slot, place, : pixels.size] = pixels.reshape(-1)
                    sample["img"] = pixels.shape  # the loader finds the pixels in the slot
                reply.append((place, sample, skipped))
        except Exception as error:  # handed over whole: the loader raises it in the caller's process
            reply = _portable(error)
        pickle.dump((ticket, reply), sink, protocol=5)
        sink.flush()


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the process being served
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not land among the replies
    import cv2

    cv2.setNumThreads(1)
    try:
        serve(sys.stdin.buffer, sink)
    except BrokenPipeError:
        pass


if __name__ == "__main__":
    main()
