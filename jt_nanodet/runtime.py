"""Makes ``import jittor`` work: the one place that prepares Jittor 1.3.11 and imports it first.

    from jt_nanodet import runtime
    runtime.setup()          # before the first "import jittor" of the process
    import jittor as jt

What it takes care of, each seen to go wrong without it:

* oneDNN comes from a package, not from a download (``runtime_onednn``).
* The core is built once, in a child process, with progress (``runtime_build``).
* ``nvcc`` on the PATH is not used in a CPU build; a CUDA build gets a home of its own (``runtime_cuda``).
* ``JITTOR_HOME`` is honoured for this process. The value that an earlier run of some other program
  left in ``~/.cache/jittor/config.json`` is neither used nor changed.
* NumPy 2 is refused: Jittor 1.3.11 exchanges garbage with it, silently.
* The cache does not depend on the name of a git branch that happens to be around the environment.
* Jittor takes over SIGINT (exits without cleaning up) and SIGCHLD (exits when any child process is
  killed) and turns off the checking of HTTPS certificates: these three are put back.
* Kernels are compiled without ``-Ofast`` (see ``EXACT_FLAGS``).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import signal
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jt_nanodet import runtime_build, runtime_cuda, runtime_machine, runtime_onednn
from jt_nanodet.errors import UserError

#: Flags for the kernels Jittor compiles at run time, in place of its ``-Ofast``. Measured with g++ 12:
#: with -Ofast, loading the first kernel makes the whole process flush denormal numbers to zero (NumPy's
#: too), NaN != NaN is false and inf - inf is 0, and exp, log and sigmoid err four times as much (1.7e-7
#: of the largest value against 4.4e-8). These flags keep all of that as IEEE 754 says and still let
#: loops be vectorised; exp-like functions take four to eight times as long (2.5 ms instead of 0.3 ms for
#: half a million), the rest the same. Sums err alike with both: Jittor adds in fp32, one after the other.
EXACT_FLAGS = "-O3 -fno-math-errno -fno-trapping-math"
_FAST_FLAG = "-Ofast"

_PACKAGES = (
    ("numpy", "numpy"),
    ("jittor", "jittor"),
    ("torch", "torch"),
    ("opencv", "opencv-python-headless"),
    ("pycocotools", "pycocotools"),
    ("onednn", runtime_onednn.PACKAGE),
)


@dataclass(frozen=True)
class RuntimeInfo:
    """What ``setup`` prepared. ``built_seconds`` is 0.0 when the core was there already."""

    device: str
    threads: int
    fast_math: bool
    jittor_home: Path
    cache: Path
    onednn: Path
    onednn_version: str
    compiler: str
    built_seconds: float


_info: RuntimeInfo | None = None


def setup(
    device: str = "cpu", threads: int | None = None, quiet: bool = True, fast_math: bool | None = None
) -> RuntimeInfo:
    """Prepare and import Jittor for ``device`` ("cpu" or "cuda"); safe to call again.

    ``threads``: OpenMP threads of CPU kernels; None keeps OMP_NUM_THREADS, else one a core.
    ``quiet``: no log lines of Jittor's; errors and the first build's progress are shown all the same.
    ``fast_math``: keep Jittor's ``-Ofast`` (and nvcc's counterpart); both settings write the same cache files, so
    do not switch while another process computes; None reads JT_NANODET_FAST_MATH ("1" or "0"), default no.
    Raises UserError for what the user can mend, and when asked for another device than before:
    Jittor is built for one device a process.
    """
    global _info
    if device not in ("cpu", "cuda"):
        raise UserError(f'unknown device "{device}": give cpu or cuda')
    if threads is not None and not 1 <= threads <= 1024:
        raise UserError(f"cannot use {threads} threads: give a number from 1 to 1024")
    if _info is not None:
        if _info.device != device:
            raise UserError(f"this process already uses Jittor on {_info.device}: start another process for {device}")
        if threads is not None and threads != _info.threads:
            set_threads(threads)
        return _info
    if "jittor" in sys.modules:
        raise RuntimeError("call jt_nanodet.runtime.setup() before the first 'import jittor' of the process")

    if fast_math is None:
        fast_math = os.environ.get("JT_NANODET_FAST_MATH", "0") == "1"
    runtime_machine.check_packages()
    compiler = runtime_machine.find_compiler()
    home = runtime_machine.jittor_home()
    onednn = runtime_onednn.place(home)
    environment = {
        "FIX_TORCH_ERROR": "0",  # else Jittor imports torch by itself
        "use_mpi": os.environ.get("use_mpi", "1" if runtime_machine.in_mpi() else "0"),
        "gdb_path": "",  # else every start asks gdb for its version, and a crash waits in gdb
        "log_silent": "1" if quiet else "0",
        "cache_name": "default",  # else the current git branch around site-packages
        # Its threads now and then crash or hang, even where every kernel is compiled already (docs/operators.md).
        # nvcc is too slow to do without.
        "use_parallel_op_compiler": str(runtime_machine.cpu_count()) if device == "cuda" else "0",
    }
    if device == "cuda":
        environment.update(runtime_cuda.environment(home))
    else:
        environment["nvcc_path"] = ""
        runtime_cuda.forget(os.environ)
    config = runtime_machine.python_config(home)
    if config is not None:
        environment["python_config_path"] = str(config)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)  # read once, when OpenMP is loaded
    os.environ.update(environment)

    with runtime_machine.idle_threads_sleep():
        cache, built = _import_jittor(home, device, environment)
    import jittor as jt

    if not fast_math:
        jt.flags.cc_flags = jt.flags.cc_flags.replace(_FAST_FLAG, EXACT_FLAGS)
        # nvcc's counterpart: approximate division and functions, numbers flushed to zero
        jt.flags.nvcc_flags = jt.flags.nvcc_flags.replace("--use_fast_math", "")
    if device == "cuda":
        runtime_cuda.check_loaded(jt)
        jt.flags.use_cuda = 1
    _info = RuntimeInfo(
        device=device,
        threads=0,
        fast_math=fast_math,
        jittor_home=home,
        cache=cache,
        onednn=onednn,
        onednn_version=runtime_onednn.interface_version(onednn) or "unknown",
        compiler=compiler,
        built_seconds=built,
    )
    set_threads(threads or default_threads())
    return _info


def info() -> RuntimeInfo:
    """What the last ``setup`` prepared; RuntimeError before it."""
    if _info is None:
        raise RuntimeError("call jt_nanodet.runtime.setup() first")
    return _info


def seed(number: int) -> None:
    """Seed Python, NumPy and, once it is set up, Jittor. ``number`` is from 0 to 2**32 - 1."""
    import numpy

    random.seed(number)
    numpy.random.seed(number)
    if _info is not None:
        import jittor as jt

        # not jt.set_global_seed: that one may seed cupy too, which would initialise a GPU
        jt.set_seed(number)


def set_threads(number: int) -> None:
    """Use ``number`` OpenMP threads in the kernels that this thread starts from now on."""
    global _info
    import ctypes
    import ctypes.util

    # Jittor's kernels and its oneDNN share the gomp that Jittor loaded; loading again finds that one.
    ctypes.CDLL(ctypes.util.find_library("gomp") or "libgomp.so.1").omp_set_num_threads(number)
    if _info is not None:
        _info = replace(_info, threads=number)


def default_threads() -> int:
    """OMP_NUM_THREADS if it is a number, else the cores this process may use, shared out under mpirun."""
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if text.isdigit() and int(text) > 0:
        return int(text)
    beside = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    return max(1, runtime_machine.cpu_count() // (int(beside) if beside.isdigit() and int(beside) else 1))




def versions() -> dict[str, str]:
    """Versions of everything a result depends on, read without importing any of it ("" if missing)."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name, package in _PACKAGES:
        found[name] = runtime_machine.package_version(package)
    if _info is not None:
        found["compiler"] = _info.compiler
        found["onednn_interface"] = _info.onednn_version
    return found




def _import_jittor(home: Path, device: str, environment: dict[str, str]) -> tuple[Path, float]:
    """Build the core if need be, then import Jittor here; return its cache folder and the build's seconds."""
    try:
        with _private_home(home), _kept_handlers():
            import jittor_utils
            from jittor_utils import install_cuda, misc

            # Jittor would start one compiler for every 3 GiB of memory, whatever the cores.
            jittor_utils.get_total_mem = lambda: runtime_machine.compile_workers() * 3 * 2**30
            # With a driver but no nvcc it would download a CUDA toolkit, even for a CPU build.
            install_cuda.has_installation = lambda: False
            install_cuda.install_cuda = lambda: None
            misc.download_url_to_local = _refuse_download
            cache = Path(jittor_utils.cache_path)
            runtime_build.remove_torn(cache)
            built = 0.0
            if os.environ.get(runtime_build.CHILD_MARK) != "1":
                built = _ensure_built(cache, home, device, environment)
            try:
                import jittor  # noqa: F401
            except SystemExit:
                if os.environ.get(runtime_build.CHILD_MARK) == "1":
                    raise
                raise UserError("Jittor rebuilt a part of itself while it was being loaded: run the same command again") from None
    except OSError as error:
        raise UserError(
            f"Jittor's cache below {home / '.cache' / 'jittor'} cannot be used ({error}): "
            'set JITTOR_HOME to a folder you can write to, or type "python -m jt_nanodet doctor"'
        ) from None
    return cache, built


def _ensure_built(cache: Path, home: Path, device: str, environment: dict[str, str]) -> float:
    stamp = cache / f"jt_nanodet-{device}.json"
    # Everything from outside that changes what Jittor compiles at import.
    watched = ("cc_flags", "kernel_flags", "nvcc_flags", "debug", "use_mkl", "enable_lto", "nvcc_path", "NVCC_APPEND_FLAGS")
    key = {name: os.environ.get(name, "") for name in watched}
    key.update(jittor=runtime_machine.JITTOR_VERSION, python=sys.version, use_mpi=environment["use_mpi"])
    key.update(config=environment.get("python_config_path", ""))
    if runtime_build.is_built(cache, stamp, key):
        return 0.0
    with runtime_build.locked(cache / "jt_nanodet.lock", "Another process is building Jittor's core; waiting for it."):
        if runtime_build.is_built(cache, stamp, key):
            return 0.0
        log = cache / "jt_nanodet-build.log"
        seconds = runtime_build.build(cache, home, device, log, "Building Jittor's core (needed once)")
        runtime_build.write_stamp(cache, stamp, key)
    return seconds


@contextlib.contextmanager
def _private_home(home: Path) -> Iterator[None]:
    """Let Jittor read and write a ``config.json`` that says ``home``, not the user's.

    Jittor stores JITTOR_HOME in ``~/.cache/jittor/config.json`` as soon as it sees it, and later
    runs of any program obey. Both variables go back to what they were.
    """
    before = {name: os.environ.get(name) for name in ("HOME", "JITTOR_HOME")}
    with tempfile.TemporaryDirectory(prefix="jt_nanodet-") as folder:
        config = Path(folder) / ".cache" / "jittor" / "config.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"JITTOR_HOME": str(home)}), encoding="utf-8")
        os.environ["HOME"] = folder
        os.environ.pop("JITTOR_HOME", None)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _kept_handlers() -> Iterator[None]:
    """Put back what importing Jittor changes for the whole process (see the module's docstring)."""
    context = ssl._create_default_https_context
    main = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    finally:
        ssl._create_default_https_context = context
        if main:
            signal.signal(signal.SIGINT, interrupt if interrupt is not None else signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _refuse_download(url: str, *_: object, **__: object) -> None:
    raise UserError(f'Jittor wants to download {url}, which this project never does: type "python -m jt_nanodet doctor"')
