"""``python -m torch_ref train CONFIG``: the command; the run itself is in `training_loop.py`."""
import os

import torch

from jt_nanodet.errors import UserError
from jt_nanodet.run import options


def set_up(opts):
    """Threads, device, processes: (rank, world) of this one."""
    if opts.device == "cuda" and not torch.cuda.is_available():
        raise UserError('PyTorch sees no CUDA device here: type --device cpu, or "python -m jt_nanodet doctor"')
    if opts.threads:
        torch.set_num_threads(opts.threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("nccl" if opts.device == "cuda" else "gloo")
        if opts.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def main(argv):
    opts = options.parse(argv, "python -m torch_ref train")
    rank, world = set_up(opts)
    from .training_loop import Trainer

    return Trainer(opts, rank, world).run()
