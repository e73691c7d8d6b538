"""``python -m jt_nanodet train CONFIG``: the command; the run itself is in `training_loop.py`."""
from . import runtime  # differs: Jittor is imported through it, once the device is known
from .run import options


def set_up(opts):
    """Threads, device, processes: (rank, world) of this one."""
    # differs: runtime and Jittor's MPI do all of it
    runtime.setup(opts.device, opts.threads)
    import jittor as jt
    from .operators import switch

    switch.use(switch.on() and not opts.plain)

    return (jt.rank, jt.world_size) if jt.in_mpi else (0, 1)


def main(argv):
    opts = options.parse(argv, "python -m jt_nanodet train")
    rank, world = set_up(opts)
    from .training_loop import Trainer

    return Trainer(opts, rank, world).run()
