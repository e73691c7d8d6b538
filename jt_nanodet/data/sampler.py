"""Which sample comes when, and from which seed it is drawn: functions of (run seed, epoch, index) and nothing else.

So the result does not depend on how many workers or processes share the work.
"""

from __future__ import annotations

import hashlib
import random


def sample_seed(run_seed: int, epoch: int, index: int, attempt: int = 0) -> int:
    """64-bit seed of one sample: BLAKE2b of the text ``nanodet-sample:RUN:EPOCH:INDEX:ATTEMPT``, big-endian.

    ``attempt`` counts the replacements for a picture that could not be read; 0 is the sample itself.
    """
    return _hash(f"nanodet-sample:{run_seed}:{epoch}:{index}:{attempt}")


def replacement_index(run_seed: int, epoch: int, index: int, attempt: int, count: int) -> int:
    """Index that takes the place of an unreadable picture at the given attempt (1, 2, …)."""
    return _hash(f"nanodet-replacement:{run_seed}:{epoch}:{index}:{attempt}") % count


def epoch_order(run_seed: int, epoch: int, count: int, shuffle: bool = True) -> list[int]:
    """Order of all indices in one epoch: Fisher-Yates of ``random.Random`` seeded by run and epoch."""
    order = list(range(count))
    if shuffle:
        random.Random(_hash(f"nanodet-order:{run_seed}:{epoch}")).shuffle(order)
    return order


def shard_batches(
    order: list[int], batch_size: int, rank: int = 0, world: int = 1, drop_last: bool = True
) -> list[list[int]]:
    """Batches of one process: each global batch of ``batch_size * world`` is cut into ``world`` consecutive parts.

    Hence ``world`` processes together see, step by step, what one process sees with the larger batch.
    Without ``drop_last`` the last global batch is cut as evenly as it goes; a part may be empty.
    """
    whole = batch_size * world
    batches = []
    for start in range(0, len(order), whole):
        part = order[start : start + whole]
        if len(part) == whole:
            batches.append(part[rank * batch_size : (rank + 1) * batch_size])
        elif not drop_last:
            cuts = [len(part) * r // world for r in range(world + 1)]
            batches.append(part[cuts[rank] : cuts[rank + 1]])
    return batches


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
