"""What a runner does, written once for both frameworks on top of `backend.Backend`."""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alignment.bundle import Bundle, BundleWriter, Header, array_sha256
from alignment.measures import measure
from alignment.result import write_json
from alignment.runners import child
from alignment.runners.backend import Backend, call_name, describe, named_tensors, rebuild, tensors_of
from jt_nanodet import checkpoint
from jt_nanodet.config import load_config, with_input_size
from jt_nanodet.data.batches import make_batch
from jt_nanodet.data.evaluator import detections_to_coco
from jt_nanodet.data.testset import open_test_set, test_batches
from jt_nanodet.errors import UserError
from jt_nanodet.run.memory import peak_memory_bytes
from jt_nanodet.weight_rules import lively_weights

#: The modules whose outputs are the stages of architecture.md's data flow.
STAGES = ("backbone", "fpn", "head", "aux_fpn", "aux_head")


class Run:
    """One job in one process: the tasks share the model while configuration and weights stay the same."""

    def __init__(self, backend: Backend, job: dict[str, Any]):
        self.backend, self.job, self.verbosity = backend, job, job.get("verbosity", 0)
        self.loaded: tuple | None = None
        self.weights_sha256 = ""
        self.auxiliary = False

    def say(self, text: str) -> None:
        if self.verbosity >= 0:
            print(f"[{self.backend.side}] {text}", file=sys.stderr, flush=True)

    def ready(self, task: dict[str, Any]) -> Any:
        """Load configuration and weights of `task`, once; returns the configuration."""
        key = (task["config"], task.get("weights"), task.get("seed", 0), task.get("input_size"))
        if self.loaded is None or self.loaded[0] != key:
            config = with_input_size(load_config(task["config"]), task.get("input_size"))
            weights = read_weights(task, self.backend, config)
            checkpoint.check_finite(weights, task.get("weights") or "the seeded weights")
            self.backend.load(config, weights, training_branch=False)
            self.weights_sha256 = checkpoint.weights_sha256(weights)
            self.auxiliary = any(name.startswith("aux_head.") for name in weights)
            self.loaded = (key, config)
        return self.loaded[1]

    def header(self, task: dict[str, Any], config: Any, inputs: str) -> Header:
        """Header of a bundle this run writes. The auxiliary branch is a flag: with and without it are two runs."""
        return Header(
            kind=task["kind"], side=self.backend.side, framework=self.backend.framework, config_sha256=config.sha256(),
            weights_sha256=self.weights_sha256, inputs_sha256=inputs, code_sha256=child.code_sha256(self.backend.side),
            seed=task.get("seed", 0), device=task.get("device", "cpu"), threads=task.get("threads") or 0, versions=versions(self.backend),
            flags={"precision": "float32", "mode": "eval", "auxiliary": self.auxiliary}, command=task.get("command", ""),
        )


def read_weights(task: dict[str, Any], backend: Backend, config: Any) -> dict[str, np.ndarray]:
    """The weights a task names, whatever their format; without a name, lively ones drawn from the seed, the same on both sides."""
    if task.get("weights"):
        import weights_convert

        return weights_convert.load(task["weights"], task.get("which", "auto")).weights
    return lively_weights(backend.shapes(config), task.get("seed", 0))


def versions(backend: Backend) -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, **backend.versions()}


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return peak_memory_bytes() / 2**20


def structure(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """Module tree with hyper-parameters, parameters, calls and multiply-adds, seen on one blank image of the configuration's size."""
    config, backend = run.ready(task), run.backend
    width, height = config.data.val.input_size
    calls: dict[str, int] = {}
    adds: dict[str, int] = {}

    def seen(path: str, module: Any, inputs: tuple, output: Any) -> None:
        calls[path] = calls.get(path, 0) + 1
        if backend.is_leaf(module):
            adds[path] = adds.get(path, 0) + multiply_adds(backend, module, output)

    with backend.tap(seen):
        backend.forward(backend.tensor(np.zeros((1, 3, height, width), np.float32)), True)
    rows = [
        {
            "path": path, "type": backend.type_name(module), "leaf": backend.is_leaf(module), "hyper": backend.hyper(module) if backend.is_leaf(module) else {},
            "params": [{"name": n, "shape": list(s), "dtype": d, "trainable": t} for n, s, d, t in backend.parameters(module)],
            "calls": calls.get(path, 0), "flops": 2 * adds.get(path, 0),
        }
        for path, module in backend.modules() if path
    ]
    path = Path(task["output"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"side": backend.side, "input": [1, 3, height, width], "modules": rows, "config_sha256": config.sha256()})
    return {"path": str(path), "modules": len(rows)}


def weights(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """Hash of every entry of the state dict as it stands in the loaded model, not as it stood in the file."""
    config, backend = run.ready(task), run.backend
    entries = {name: {"shape": list(a.shape), "dtype": str(a.dtype), "sha256": array_sha256(a)} for name, a in backend.state().items()}
    path = Path(task["output"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"side": backend.side, "entries": entries, "config_sha256": config.sha256(), "weights_sha256": run.weights_sha256,
                      "source": task.get("weights") or f"seeded weights of seed {task.get('seed', 0)}", "auxiliary": run.auxiliary})
    return {"path": str(path), "entries": len(entries)}


def multiply_adds(backend: Backend, module: Any, output: Any) -> int:
    """Multiply-adds of a convolution's call, from its kernel and the size of its output; 0 for every other layer."""
    hyper = backend.hyper(module)
    if "kernel_size" not in hyper or "in_channels" not in hyper:
        return 0
    kernel = int(np.prod(hyper["kernel_size"])) * hyper["in_channels"] // hyper["groups"]
    return int(np.prod(output.shape)) * kernel


class Recorder:
    """Keeps every call of every module that computes something: its inputs and its output, as the framework's tensors;
    with `wanted` only the calls of these names."""

    def __init__(self, backend: Backend, wanted: set[str] | None = None):
        self.backend, self.wanted, self.calls = backend, wanted, {}
        self.counts: dict[str, int] = {}

    def __call__(self, path: str, module: Any, inputs: tuple, output: Any) -> None:
        self.counts[path] = self.counts.get(path, 0) + 1
        call = call_name(path, self.counts[path])
        if path and not self.backend.is_holder(module) and (self.wanted is None or call in self.wanted):
            self.calls[call] = (path, module, inputs, output)


def outputs(name: str, output: Any, array: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Names and arrays of a call's output: `name` for one tensor, ``name/0``, ``name/1`` ... for several."""
    found = tensors_of(output)
    if len(found) == 1 and not isinstance(output, (tuple, list, dict)):
        return {name: array(found[0])}
    return {f"{name}/{i}": array(t) for i, t in enumerate(found)}


def refed(path: str) -> bool:
    """Whether a module is run again on the reference's input. Whole stages are not: their parts are, and the whole run judges how these are joined."""
    return path not in STAGES


def layers_reference(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """The reference's bundle: every call's inputs and output, its float64 twin, and the floors. `backend.floors` does the harmless changes."""
    config, backend, started = run.ready(task), run.backend, time.perf_counter()
    images = np.load(task["inputs"], allow_pickle=False)
    recorder = Recorder(backend)
    run.say("forward pass with every call recorded")
    with backend.tap(recorder):
        backend.forward(backend.tensor(images), run.auxiliary)
    untapped = backend.decode(images)
    stored: dict[str, str] = {array_sha256(images): "input"}
    described, order, types = {}, {}, {}
    with BundleWriter(task["output"], run.header(task, config, array_sha256(images))) as bundle:
        bundle.add("input", images)

        def store(name: str, array: np.ndarray) -> str:
            key = array_sha256(array)
            if key not in stored:
                stored[key] = name
                bundle.add(name, array)
            return stored[key]

        for call, (path, module, inputs, output) in recorder.calls.items():
            position = iter(range(1 << 30))
            described[call] = describe(inputs, lambda t: store(f"in/{call}/{next(position)}", backend.array(t)))
            named = outputs(call, output, backend.array)
            for name, array in named.items():
                bundle.add(f"out/{name}", array)
                stored.setdefault(array_sha256(array), f"out/{name}")
            order[call], types[call] = list(named), backend.type_name(module)
        for name, array in untapped.items():
            bundle.add(f"decode/{name}", array)
        own, whole = backend.floors(recorder, images, run.auxiliary, bundle, task.get("seed", 0), run.say)
        extra = {
            "inputs": described, "outputs": order, "types": types, "stages": [s for s in STAGES if s in order], "refed": [c for c, (path, *_) in recorder.calls.items() if refed(path)],
            "leaves": {c: backend.is_leaf(m) for c, (_, m, _, _) in recorder.calls.items()}, "floors_own": own, "floors_whole": whole,
            "uncalled": [p for p, m in backend.modules() if p and backend.is_leaf(m) and p not in recorder.counts],
            "observer_equal": observer_equal(recorder, untapped, backend), "circumstances": {**backend.circumstances(), "seed": task.get("seed", 0)},
        }
        bundle.close(durations={"total": time.perf_counter() - started}, peak_memory_mb=peak_memory_mb(), extra=extra)
    return {"path": task["output"], "calls": len(recorder.calls)}


def layers_candidate(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """The candidate's bundle: every call's output in its own run (``out/``) and when fed the reference's inputs (``own/``)."""
    config, backend, started = run.ready(task), run.backend, time.perf_counter()
    reference = Bundle.open(task["reference"])
    images = reference["input"]
    recorder = Recorder(backend)
    run.say("forward pass with every call recorded")
    with backend.tap(recorder):
        backend.forward(backend.tensor(images), run.auxiliary)
    untapped = backend.decode(images)
    modules = dict(backend.modules())
    with BundleWriter(task["output"], run.header(task, config, array_sha256(images))) as bundle:
        order, entering = {}, {}
        for call, (path, module, inputs, output) in recorder.calls.items():
            named = outputs(call, output, backend.array)
            order[call] = list(named)
            for name, array in named.items():
                bundle.add(f"out/{name}", array)
            if call in reference.header.extra["inputs"]:
                entering[call] = entering_error(reference, call, [backend.array(t) for t in tensors_of(inputs)])
        for name, array in untapped.items():
            bundle.add(f"decode/{name}", array)
        same = observer_equal(recorder, untapped, backend)
        recorder.calls.clear()
        run.say("every call again on the reference's own input")
        for call, inputs in reference.header.extra["inputs"].items():
            module = modules.get(call.split("@")[0])
            if module is None or not refed(call.split("@")[0]):
                continue  # what is missing is reported by the comparison
            result = module(*rebuild(inputs, lambda name: backend.tensor(reference[name])))
            for name, array in outputs(call, result, backend.array).items():
                bundle.add(f"own/{name}", array)
        extra = {"outputs": order, "observer_equal": same, "entering": entering, "float64": in_float64(run, reference, task["float64"]) if task.get("float64") else None,
                 "uncalled": [p for p, m in backend.modules() if p and backend.is_leaf(m) and p not in recorder.counts]}
        bundle.close(durations={"total": time.perf_counter() - started}, peak_memory_mb=peak_memory_mb(), extra=extra)
    return {"path": task["output"], "calls": len(order)}


def in_float64(run: Run, reference: Bundle, pattern: str) -> dict[str, float]:
    """For every call that the shell pattern matches: the relative L2 difference of both sides when each computes it in float64, on the same input. Changes the loaded model."""
    run.say("every call again in float64")
    backend, errors = run.backend, {}
    with backend.in_float64():
        modules = dict(backend.modules())
        for call, inputs in reference.header.extra["inputs"].items():
            module = modules.get(call.split("@")[0])
            if module is None or not refed(call.split("@")[0]) or not fnmatch.fnmatchcase(call, pattern):
                continue
            result = module(*rebuild(inputs, lambda name: backend.tensor64(reference[name])))
            for name, array in outputs(call, result, backend.array).items():
                there = reference[f"own64/{name}"]
                if there.shape == array.shape and array.size and np.isfinite(array).all():
                    errors[name] = measure(there, array, bound=0.0).rel_l2
    run.loaded = None
    if not errors:
        raise UserError(f"--float64 {pattern} matches no call: give a pattern of names as result.json has them, such as 'backbone.*', or none for all")
    return errors


def entering_error(reference: Bundle, call: str, arrays: list[np.ndarray]) -> float | None:
    """The largest relative L2 difference between what enters this call on the two sides; None where they cannot be compared."""
    names = named_tensors(reference.header.extra["inputs"][call])
    errors = []
    for name, array in zip(names, arrays):
        there = reference[name]
        if there.shape != array.shape or there.size == 0 or not (np.isfinite(there).all() and np.isfinite(array).all()):
            return None
        errors.append(measure(there, array, bound=0.0).rel_l2)
    return max(errors, default=None) if len(names) == len(arrays) else None


def observer_equal(recorder: Recorder, untapped: dict[str, np.ndarray], backend: Backend) -> bool:
    """Whether the tapped run gave the head's output of the untapped one, bit for bit."""
    return np.array_equal(backend.array(recorder.calls["head"][3]), untapped["raw"])


def detect(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """Detections of a data set through the side's own tester, and the floor of boxes and scores; writes COCO-format JSON."""
    config, backend, started = run.ready(task), run.backend, time.perf_counter()
    document = backend.tester().run(backend.model, config, task, run.say)
    if task.get("floor_images"):
        dataset = open_test_set(config, task.get("images"), task.get("annotations"))
        run.say("floor of boxes and scores")
        document["floor"] = backend.detection_floor([batch["img"] for batch in test_batches(dataset, 1, task["floor_images"])])
    document.update(weights_sha256=run.weights_sha256, config_sha256=config.sha256(), code_sha256=child.code_sha256(backend.side),
                    versions=versions(backend), seconds=time.perf_counter() - started, peak_memory_mb=peak_memory_mb())
    path = Path(task["output"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    return {"path": str(path), "detections": len(document["detections"])}


def speed(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """Time pictures on demand: a line on standard input names a batch size, and is answered by one line of JSON on standard output.

    A round is the whole way from file to COCO entries of `count` pictures, or of one batch where that is larger, each phase apart, in seconds a batch;
    the few pictures are taken again until a batch is full. A warm-up round of every batch size comes before the first.
    """
    config, backend = run.ready(task), run.backend
    tester, head = backend.tester(), config.model.arch.head
    dataset = open_test_set(config, task.get("images"), task.get("annotations"))
    count = min(task["count"], len(dataset))

    def one_round(size: int) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {"preprocess": [], "forward": [], "postprocess": []}
        for start in range(0, max(count, size), size):
            indices = [k % count for k in range(start, start + size)]
            begun = time.perf_counter()
            batch = make_batch([dataset[index] for index in indices], indices)
            loaded = time.perf_counter()
            # the answer lies in the host's memory: the device is done
            boxes, scores = tester.detect(backend.model, head, batch["img"], **({"plain": True} if task.get("plain") else {}))
            computed = time.perf_counter()
            for k in range(size):
                dets, labels, _ = tester.multiclass_nms(boxes[k], scores[k])
                detections_to_coco(np.asarray(dets), np.asarray(labels), batch["img_info"][k], batch["warp_matrix"][k], dataset.cat_ids)
            done = time.perf_counter()
            for name, seconds in (("preprocess", loaded - begun), ("forward", computed - loaded), ("postprocess", done - computed)):
                times[name].append(seconds)
        return times

    first = {}
    for size in task.get("batch_sizes", [1]):
        begun = time.perf_counter()
        one_round(size)
        first[size] = time.perf_counter() - begun
    print(json.dumps({"ready": True, "first_round_seconds": first}), flush=True)
    for line in sys.stdin:
        print(json.dumps(one_round(int(line))), flush=True)
    return {"peak_memory_mb": peak_memory_mb(), "first_round_seconds": first}


def main(argv: list[str], make_backend: Callable[[dict[str, Any]], Backend], kinds: dict[str, Callable]) -> int:
    """Read the job, do its tasks in order, write the report. A UserError becomes the report's `error` and exit status 2."""
    parser = argparse.ArgumentParser(description="Run one side's tasks from a job file that an alignment command wrote.")
    parser.add_argument("job", type=Path, help="the *.job.json file in an output folder")
    job = json.loads(parser.parse_args(argv).job.read_text(encoding="utf-8"))
    report: dict[str, Any] = {"side": job["side"], "error": None, "tasks": []}
    code = 0
    try:
        run = Run(make_backend(job["tasks"][0]), job)
        report["versions"] = versions(run.backend)
        for task in job["tasks"]:
            started = time.perf_counter()
            done = kinds[task["kind"]](run, task)
            report["tasks"].append({"kind": task["kind"], "seconds": time.perf_counter() - started, **done})
        report["peak_memory_mb"] = peak_memory_mb()
    except UserError as error:
        report["error"], code = str(error), 2
    except Exception:
        traceback.print_exc(file=sys.stdout)
        report["error"], code = None, 1
    if code != 1:
        write_json(Path(job["report"]), report)
    return code
