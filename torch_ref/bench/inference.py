"""The reference's processes of ``python -m jt_nanodet bench inference``: PyTorch eager and compiled, and the engines that read its ONNX export.

`pytorch` also writes what the others are held to, ``truth.npy`` (the output in float64), and the weights in use.
"""

import importlib.metadata
import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from jt_nanodet.checkpoint import read_weights
from jt_nanodet.config import load_config
from jt_nanodet.weight_rules import lively_weights

from .gpu import memory_mb
from ..detector import build_model, load_state

ENGINES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino"),
           "openvino-f32": ("onnx", "onnxscript", "openvino")}


def missing(name):
    """What to type where a contestant's packages are not installed; None where they are."""
    absent = [package for package in ENGINES.get(name, ()) if importlib.util.find_spec(package) is None]
    return f"pip install {' '.join(absent)} (the bench extra)" if absent else None


def versions(name):
    """Of PyTorch and of what the contestant computes with."""
    return {package: importlib.metadata.version(package) for package in ("torch", *ENGINES.get(name, ()))}


def onnx_file(model, images, folder):
    """The model in ONNX with a fixed input, exported once a case."""
    path = Path(folder) / "model.onnx"
    if not path.is_file():
        temporary = path.with_suffix(".part.onnx")
        torch.onnx.export(model, (images,), str(temporary), input_names=["images"], output_names=["raw"], dynamo=True, external_data=False, verbose=False)
        temporary.rename(path)
    return path


def onnxruntime_forward(path, images, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})[0]


def openvino_forward(path, images, threads, precision):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    return lambda: request.infer([images])[0].copy()


def contestant(job, model, images):
    """forward() -> raw output in NumPy."""
    name, threads, given = job["name"], job["threads"], torch.from_numpy(images)
    if name in ("pytorch", "torch-compile"):
        run = torch.compile(model) if name == "torch-compile" else model

        def forward():
            with torch.inference_mode():
                return run(torch.from_numpy(images)).numpy()
        return forward
    path = onnx_file(model, given, job["folder"])
    if name == "onnxruntime":
        return onnxruntime_forward(path, images, threads)
    return openvino_forward(path, images, threads, "f32" if name == "openvino-f32" else None)


def main(path):
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    reason = missing(job["name"])
    if reason:
        print(json.dumps({"not_run": reason}), flush=True)
        return 0
    torch.set_num_threads(job["threads"])
    model = build_model(load_config(job["config"]).model.arch)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    load_state(model, read_weights(job["weights"]) if job["weights"] else lively_weights(shapes, job["seed"]), training_branch=False)
    model.eval()
    images = np.load(job["images"], allow_pickle=False)
    if job["name"] == "pytorch":
        with torch.inference_mode():
            truth = model.double()(torch.from_numpy(images).double()).numpy()
        np.save(Path(job["folder"]) / "truth.npy", truth)
        model.float()
    forward = contestant(job, model, images)
    np.save(job["output"], forward())
    for _ in range(3):
        forward()
    print(json.dumps({"ready": True, "versions": versions(job["name"])}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            started = time.perf_counter()
            forward()
            seconds.append(time.perf_counter() - started)
        print(json.dumps({"seconds": seconds, "memory_mb": memory_mb("cpu")}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
