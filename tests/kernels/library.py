"""The kernels as a shared library with a C interface (`exports.cu`): compiled for the GPU, or for the emulation on the host."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from jt_nanodet import runtime_cuda

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "jt_nanodet" / "kernels"
ARCHITECTURES = (75, 80, 86, 89, 90, 100)
F = np.float32


def find_nvcc() -> Path | None:
    """An nvcc of CUDA 13, wherever `runtime_cuda` looks for one; the mathematical libraries are not needed here."""
    return next((nvcc for nvcc in runtime_cuda.compilers() if (runtime_cuda.nvcc_version(nvcc) or "").startswith("13.")), None)


def nvcc_command(nvcc: Path, output: Path, architectures: tuple[int, ...]) -> list[str]:
    codes = [word for n in architectures for word in ("-gencode", f"arch=compute_{n},code=sm_{n}")]
    return [str(nvcc), "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "--threads", "0", "-I", str(KERNELS), *codes,
            str(HERE / "exports.cu"), "-o", str(output)]


def host_command(output: Path) -> list[str]:
    return [os.environ.get("cc_path") or "g++", "-std=c++17", "-O2", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC", "-Wall", "-Wextra",
            "-Wno-unused-function", "-Wno-unused-parameter", "-Werror", "-I", str(KERNELS), "-x", "c++", "-include", str(HERE / "cuda_on_host.h"),
            str(HERE / "exports.cu"), "-o", str(output)]


def compiled(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Kernels:
    """One library. kind: "emulated", "cpu" (the C++ kernels beside them) or "cuda"."""

    def __init__(self, path: Path, kind: str):
        self.handle, self.kind = ctypes.CDLL(str(path)), kind
        self.handle.barriers_passed.restype = ctypes.c_long

    def call(self, name: str, inputs: list[np.ndarray], outputs: list[np.ndarray], sizes: tuple[int, ...], *numbers) -> None:
        def pointers(arrays):
            return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))

        inputs = [np.ascontiguousarray(a) for a in inputs]
        code = getattr(self.handle, name)(pointers(inputs), pointers(outputs), (ctypes.c_int * len(sizes))(*sizes), *numbers, int(self.kind == "cpu"))
        assert code == 0, f"CUDA error {-code}" if code < 0 else f"something was written beside array {code - 1}"

    def order(self, number: int) -> None:
        """0: threads run forwards between barriers, 1: backwards, 2: shuffled."""
        self.handle.set_order(number)

    def assign(self, batch: dict) -> dict[str, np.ndarray]:
        """Outputs by name for a batch of `cases.assign_batch`."""
        gts, counts = padded(batch["gt_boxes"], 4, F)
        labels, _ = padded(batch["gt_labels"], 0, np.int32)
        held, held_counts = padded(batch["ignored"], 4, F)
        logits, boxes, priors = batch["logits"], batch["boxes"], batch["priors"]
        (images, count, classes), places = logits.shape, gts.shape[1]
        out = {"gt_index": np.zeros((images, count), np.int32), "iou": np.zeros((images, count), F), "label": np.zeros((images, count), np.int32),
               "quality": np.zeros((images, count), F), "weight": np.zeros((images, count), F), "target": np.zeros((images, count, 4), F),
               "distance": np.zeros((images, count, 4), F), "candidate": np.zeros((images, count), np.int32), "topk_sum": np.zeros((images, places), F),
               "cost": np.zeros((images, places, count), F), "overlap": np.zeros((images, places, count), F), "base": np.zeros((images, count)),
               "chosen": np.zeros((images, count), np.int32), "valid": np.zeros(images, np.int32)}
        self.call("run_assign", [logits, boxes, priors, gts, labels, counts, held, held_counts], list(out.values()),
                  (images, count, places, classes, held.shape[1], batch["topk"]), ctypes.c_double(batch["iou_factor"]),
                  ctypes.c_float(batch["ignore_threshold"]), ctypes.c_float(batch["limit"]))
        return out

    def nms(self, batch: dict) -> dict[str, np.ndarray]:
        """Outputs by name for a batch of `cases.nms_batch`."""
        boxes, scores, most = batch["boxes"], batch["scores"], batch["most"]
        images, count, classes = scores.shape
        out = {"detections": np.zeros((images, most, 5), F), "kept": np.zeros((images, most), np.int32), "count": np.zeros(images, np.int32),
               "candidates": np.zeros(images, np.int32)}
        self.call("run_nms", [boxes, scores], list(out.values()), (images, count, classes, most), ctypes.c_float(batch["score"]), ctypes.c_double(batch["iou"]))
        return out


def padded(rows, width, dtype):
    most = max([1, *map(len, rows)])
    whole = np.zeros((len(rows), most, width) if width else (len(rows), most), dtype)
    for i, row in enumerate(rows):
        whole[i, :len(row)] = row
    return whole, np.array([len(row) for row in rows], np.int32)


@functools.cache
def host_library() -> Path:
    """Compiled once a source state; kept in the temporary folder."""
    digest = hashlib.sha256()
    for path in sorted([*KERNELS.glob("*.h"), *KERNELS.glob("*.cu"), *HERE.glob("*.h"), *HERE.glob("*.cu")]):
        digest.update(path.read_bytes())
    folder = Path(tempfile.mkdtemp(prefix="jt_nanodet-kernels-"))
    output = folder / f"host-{digest.hexdigest()[:12]}.so"
    compiled(host_command(output))
    return output


@functools.cache
def cuda_library() -> Path:
    """For the GPU at hand; raises UserError without one."""
    gpu, nvcc = runtime_cuda.find_gpu(), find_nvcc()
    assert nvcc is not None
    output = Path(tempfile.mkdtemp(prefix="jt_nanodet-kernels-")) / "cuda.so"
    compiled(nvcc_command(nvcc, output, (gpu.capability,)))
    return output
