"""One side on golden files, in a process of its own: ``python -m tests.golden.eval_run SIDE OUT FILE...`` writes OUT/<file>.npz.

The reference (``torch_ref``) runs in float64 and, in float32, as it is and under harmless changes: the float64 run has no rounding of
its own to speak of, and the others say how much rounding a float32 run has.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import numpy as np

from alignment.noise import measure_floor
from tests.golden import rule

#: The harmless changes that move most, of those `alignment.runners.torch_changes` knows; the rest would cost as much again.
CHANGES = ("other number of threads", "other convolution algorithm", "weights moved by one ULP")


def stages(model, images, concat):
    """Name to tensor of every ``eval/*`` array but the detections; the auxiliary head reads both pyramids."""
    features = model.backbone(images)
    pyramid = model.fpn(features)
    both = [concat((a, b), 1) for a, b in zip(pyramid, model.aux_fpn(features))]
    found = {f"eval/backbone/{i}": x for i, x in enumerate(features)}
    found |= {f"eval/fpn/{i}": x for i, x in enumerate(pyramid)}
    return found | {"eval/head": model.head(pyramid), "eval/aux_head": model.aux_head(both)}


def detections(postprocess, boxes, scores, found, prefix):
    """Detections, labels and, as [x1, y1, x2, y2, score, label], everything above the threshold before suppression."""
    for i in range(len(boxes)):
        dets, labels, _ = postprocess.multiclass_nms(boxes[i], scores[i])
        found[f"{prefix}detections/{i}"], found[f"{prefix}labels/{i}"] = np.asarray(dets), np.asarray(labels)
        box, score = np.asarray(boxes[i]), np.asarray(scores[i])
        prior, label = np.nonzero(score > np.float32(postprocess.SCORE_THRESHOLD))
        found[f"{prefix}candidates/{i}"] = np.concatenate((box[prior], score[prior, label][:, None], label[:, None]), 1)


def run_jittor(path):
    from jt_nanodet import runtime

    runtime.setup()
    import jittor as jt

    side = {name: importlib.import_module(f"jt_nanodet.{name}") for name in ("detector", "decode", "postprocess")}
    header, _ = rule.load(path)
    arch = rule.config_for(header).model.arch
    model = side["detector"].build_model(arch)
    side["detector"].load_state(model, rule.state(header))
    found = {"keys": keys_of(side["detector"].state_arrays(model))}
    images = rule.images(header)
    with jt.no_grad():
        run = stages(model, jt.array(images), jt.concat)
        boxes, scores = side["decode"].decode(run["eval/head"], model.head.distribution_project, arch.head, images.shape[2:])
        found |= {f"run/{name}": rule.sampled(x.numpy(), header, name) for name, x in run.items()}
        detections(side["postprocess"], boxes.numpy(), scores.numpy(), found, "run/")
    return found


def run_torch(path):
    import torch

    from alignment.runners import torch_changes
    from torch_ref import decode, detector, postprocess

    torch.set_grad_enabled(False)
    header, _ = rule.load(path)
    arch = rule.config_for(header).model.arch
    model = detector.build_model(arch)
    detector.load_state(model, rule.state(header))
    found = {"keys": keys_of(detector.state_arrays(model))}
    images = torch.from_numpy(rule.images(header))
    size = tuple(images.shape[2:])

    def whole(net, x):
        run = stages(net, x, torch.cat)
        boxes, scores = decode.decode(run["eval/head"], net.head.distribution_project, arch.head, size)
        return {name: rule.sampled(y.numpy(), header, name) for name, y in run.items()}, run["eval/head"], boxes, scores

    nudged, changes = torch_changes.nudged_model(model, 0), [c for c in torch_changes.harmless_changes(0) if c.name in CHANGES]
    variants = [whole(model, images)]
    for change in changes:
        with change.around():
            variants.append(whole(nudged if change.weights else model, change.before(images)))
    detections(postprocess, *variants[0][2:], found, "f32/")
    truth, raw, boxes, scores = whole(model.double(), images.double())
    names = ("as is", *(change.name for change in changes))
    floors = {name: measure_floor(x, [one[0][name] for one in variants], names, channel_axis=None) for name, x in truth.items()}
    chosen = scores.amax(-1) > postprocess.SCORE_THRESHOLD
    for k, name in ((2, "boxes"), (3, "scores")):
        floors[name] = measure_floor({2: boxes, 3: scores}[k][chosen].numpy(), [one[k][chosen].numpy() for one in variants], names, channel_axis=None)
    found |= {f"f64/{name}": x for name, x in truth.items()} | {f"f32/{name}": x for name, x in variants[0][0].items()}
    found["floors"] = text({name: dataclasses.asdict(floor) for name, floor in floors.items()})
    # as upstream decodes: float32 from here on, whatever the logits came from
    boxes, scores = decode.decode(raw.float(), model.float().head.distribution_project, arch.head, size)
    detections(postprocess, boxes, scores, found, "f64/")
    return found


def keys_of(arrays):
    """The state dict as the header lists it."""
    return text([[name, list(a.shape), str(a.dtype)] for name, a in arrays.items()])


def text(document):
    return np.frombuffer(json.dumps(document).encode(), np.uint8)


def main(side, out, *paths):
    for path in map(Path, paths):
        np.savez(Path(out) / path.name, **{"torch_ref": run_torch, "jt_nanodet": run_jittor}[side](path))


if __name__ == "__main__":
    main(*sys.argv[1:])
