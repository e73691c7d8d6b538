"""Batches on which every rule of assigner and suppression decides something, and random ones; each is a dictionary of NumPy arrays."""

from __future__ import annotations

import functools

import numpy as np

from jt_nanodet.kernels import assign_reference, nms_reference

F = np.float32


def grid(size: int, strides=(8, 16, 32, 64)) -> np.ndarray:
    """(P, 4) priors of a square input."""
    rows = [(x * s, y * s, s, s) for s in strides for y in range(-(-size // s)) for x in range(-(-size // s))]
    return np.array(rows, F)


def scene(r: np.random.RandomState, count: int, size: int, classes: int, priors: np.ndarray, reach: float = 24.0):
    """Predictions around their priors and `count` boxes inside the picture."""
    sides = r.rand(len(priors), 4) * reach * priors[:, 2:3] / 8
    boxes = np.concatenate([priors[:, :2] - sides[:, :2], priors[:, :2] + sides[:, 2:]], 1).astype(F)
    extent = 4 + r.rand(count, 2) * (size * 0.7)
    corner = r.rand(count, 2) * np.maximum(size - extent, 1)
    gt = np.concatenate([corner, corner + extent], 1).astype(F)
    return (r.randn(len(priors), classes) * 2).astype(F), boxes, gt, r.randint(0, classes, count)


def assign_batch(images: list[tuple], priors: np.ndarray, topk=13, iou_factor=3.0, ignore_threshold=-1.0, limit=6.9) -> dict:
    """images: (logits, boxes, gt_boxes, gt_labels[, ignored])."""
    return {"logits": np.stack([i[0] for i in images]), "boxes": np.stack([i[1] for i in images]), "priors": priors,
            "gt_boxes": [np.asarray(i[2], F).reshape(-1, 4) for i in images], "gt_labels": [np.asarray(i[3], np.int64) for i in images],
            "ignored": [np.asarray(i[4], F).reshape(-1, 4) if len(i) > 4 else np.zeros((0, 4), F) for i in images],
            "topk": topk, "iou_factor": iou_factor, "ignore_threshold": ignore_threshold, "limit": limit}


def random_assign(number: int) -> dict:
    """50 images of one size with 0 to 9 boxes each."""
    r = np.random.RandomState(number)
    size, classes = (32, 48, 64)[number % 3], (1, 3, 9, 17)[number % 4]
    priors = grid(size, (8, 16, 32))
    images = []
    for _ in range(50):
        logits, boxes, gt, labels = scene(r, r.randint(0, 10) if r.rand() < 0.9 else 0, size, classes, priors)
        if r.rand() < 0.3:  # equal predictions, therefore equal costs
            logits, boxes = np.round(logits), np.round(boxes / 8) * 8
        if r.rand() < 0.2 and len(gt):
            gt = np.round(gt / 8) * 8
        images.append((logits.astype(F), boxes.astype(F), gt, labels, scene(r, r.randint(0, 3), size, classes, priors)[2]))
    return assign_batch(images, priors, topk=(13, 13, 1, 5)[number % 4], ignore_threshold=(-1.0, 0.5)[number % 2])


def assign_edges() -> dict[str, dict]:
    """Every named edge case of the assigner."""
    r = np.random.RandomState(7)
    priors = grid(64)
    logits, boxes, gt, labels = scene(r, 3, 64, 4, priors)
    one = np.array([[4, 4, 40, 40]], F)
    found = {
        "no box in any image": [(logits, boxes, gt[:0], labels[:0])] * 3,
        "no box beside images with boxes": [(logits, boxes, gt, labels), (logits, boxes, gt[:0], labels[:0]), (logits, boxes, gt[:1], labels[:1])],
        "no prior inside": [(logits, boxes, np.array([[1, 1, 7, 7]], F), [0])],
        "one prior inside": [(logits, boxes, np.array([[7, 7, 9, 9]], F), [0])],
        "a centre on the edge": [(logits, boxes, np.array([[8, 8, 24, 24]], F), [1])],
        "one prior inside two boxes": [(logits, boxes, np.array([[4, 4, 12, 12], [2, 2, 14, 14]], F), [0, 1])],
        "identical boxes": [(logits, boxes, np.repeat(one, 3, 0), [1, 1, 1])],
        "identical boxes of other classes": [(logits, boxes, np.repeat(one, 3, 0), [0, 1, 2])],
        "zero-area boxes": [(logits, boxes, np.array([[8, 8, 8, 8], [0, 0, 64, 64], [5, 5, 5, 30]], F), [0, 1, 2])],
        "zero-area predictions": [(logits, np.concatenate([priors[:, :2]] * 2, 1), gt, labels)],
        "far boxes": [(logits, boxes + F(1e6), gt, labels), (logits, boxes, np.array([[1e6, 1e6, 2e6, 2e6], [0, 0, 50, 50]], F), [0, 0])],
        "equal predictions": [(logits * 0, np.tile(np.array([[10, 10, 30, 30]], F), (len(priors), 1)), gt, labels)],
        "perfect predictions": [(logits, np.tile(one, (len(priors), 1)), np.repeat(one, 2, 0), [0, 1])],
        "large logits": [(logits * 40, boxes, gt, labels), (logits * F(1e30), boxes, gt, labels)],
        "infinite logits": [(np.where(logits > 2, F(np.inf), np.where(logits < -2, F(-np.inf), logits)), boxes, gt, labels)],
        "NaN predictions": [(logits * F(np.nan), boxes, gt, labels), (logits, boxes * F(np.nan), gt, labels),
                            (np.where(r.rand(*logits.shape) < 0.1, F(np.nan), logits), np.where(r.rand(*boxes.shape) < 0.1, F(np.nan), boxes), gt, labels)],
        "infinite boxes": [(logits, np.where(r.rand(*boxes.shape) < 0.2, F(np.inf), boxes), gt, labels)],
        "labels beyond the classes": [(logits, boxes, gt, [4, -1, 0])],
    }
    batches = {name: assign_batch(images, priors) for name, images in found.items()}
    batches["ignored boxes"] = assign_batch([(logits, boxes, gt, labels, np.array([[0, 0, 30, 30]], F)), (logits, boxes, gt[:0], labels[:0], one)],
                                            priors, ignore_threshold=0.3)
    for count in (1, 63, 64, 65, 1025):  # candidates: priors on a line inside one box
        line = np.stack([8 + np.arange(count + 2) * 8.0, np.full(count + 2, 8.0), np.full(count + 2, 8.0), np.full(count + 2, 8.0)], 1).astype(F)
        images = [scene(r, 0, 64, 2, line)[:2] + (np.array([[8, 0, 8 * (count + 2), 16]], F), [1])]
        batches[f"{count} candidates"] = assign_batch(images, line)
    many = grid(64, (8, 16))
    batches["500 boxes"] = assign_batch([scene(r, n, 64, 2, many) for n in (500, 0, 499)], many)
    batches["128 images"] = assign_batch([scene(r, n % 3, 32, 2, grid(32, (16, 32))) for n in range(128)], grid(32, (16, 32)))
    batches["80 classes"] = assign_batch([scene(r, 4, 64, 80, priors) for _ in range(2)], priors)
    return batches


def nms_batch(boxes, scores, score=0.05, iou=0.6, most=100) -> dict:
    return {"boxes": np.ascontiguousarray(boxes, F), "scores": np.ascontiguousarray(scores, F), "score": score, "iou": iou, "most": most}


def rows(*given, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(1, n, 4) boxes and (1, n, C) scores of rows (x1, y1, x2, y2, class, score)."""
    scores = np.zeros((1, len(given), classes), F)
    for k, (*_, label, score) in enumerate(given):
        scores[0, k, label] = score
    return np.array([[g[:4] for g in given]], F), scores


def crowd(r: np.random.RandomState, images: int, count: int, classes: int, size: float = 100.0, level: float = 0.3):
    corner = r.rand(images, count, 2) * size
    boxes = np.concatenate([corner, corner + r.rand(images, count, 2) * size / 2], 2)
    return boxes, r.rand(images, count, classes) ** (1 / level - 1)


def random_nms(number: int) -> dict:
    """50 images of one size."""
    r = np.random.RandomState(1000 + number)
    boxes, scores = crowd(r, 50, (1, 7, 40, 90)[number % 4], (1, 3, 5)[number % 3])
    if number % 5 == 1:  # many equal scores, many equal boxes
        boxes, scores = np.round(boxes / 20) * 20, np.round(scores * 8) / 8
    if number % 5 == 2:
        boxes -= 60
    return nms_batch(boxes, scores, iou=(0.6, 0.3, 0.9)[number % 3], most=(100, 5)[number % 2])


def nms_edges() -> dict[str, dict]:
    """Every named edge case of the suppression."""
    r = np.random.RandomState(3)
    below, above = np.nextafter(F(5), F(0)), np.nextafter(F(5), F(9))
    found = {
        "overlap at the threshold": nms_batch(*rows((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 5, 0, 0.8)), iou=0.5),
        "overlap just under the threshold": nms_batch(*rows((0, 0, 10, 10, 0, 0.9), (0, 0, 10, below, 0, 0.8)), iou=0.5),
        "overlap just over the threshold": nms_batch(*rows((0, 0, 10, 10, 0, 0.9), (0, 0, 10, above, 0, 0.8)), iou=0.5),
        "three fifths": nms_batch(*rows((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 6, 0, 0.8))),
        "equal scores": nms_batch(*rows((0, 0, 10, 10, 0, 0.5), (0, 0, 10, 9, 0, 0.5), (50, 50, 60, 60, 0, 0.5), (50, 50, 60, 60, 1, 0.5))),
        "identical boxes": nms_batch(*rows(*[(5, 5, 25, 25, 1, 0.5)] * 40)),
        "zero-area boxes": nms_batch(*rows((5, 5, 5, 5, 0, 0.9), (5, 5, 5, 5, 0, 0.8), (0, 0, 10, 10, 0, 0.7), (3, 3, 3, 9, 0, 0.6))),
        "boxes inside out": nms_batch(*rows((10, 10, 0, 0, 0, 0.9), (0, 0, 10, 10, 0, 0.8), (0, 10, 10, 0, 0, 0.7))),
        "far boxes": nms_batch(*rows((1e7, 1e7, 1e7 + 8, 1e7 + 8, 0, 0.9), (1e7, 1e7, 1e7 + 9, 1e7 + 8, 0, 0.8), (0, 0, 9, 9, 2, 0.7), (-1e6, 0, 9, 9, 2, 0.6))),
        "negative coordinates": nms_batch(*rows((-50, -50, -10, -10, 0, 0.9), (-51, -50, -10, -10, 0, 0.8), (-50, -50, -10, -10, 1, 0.7))),
        "scores at the threshold": nms_batch(*rows((0, 0, 9, 9, 0, F(0.05)), (20, 0, 29, 9, 0, np.nextafter(F(0.05), F(1))))),
        "no candidate": nms_batch(*rows((0, 0, 9, 9, 0, 0.01))),
        "one candidate": nms_batch(*rows((0, 0, 9, 9, 2, 0.9))),
        "NaN scores": nms_batch(*rows((0, 0, 9, 9, 0, np.nan), (20, 0, 29, 9, 0, 0.5))),
        "NaN coordinates": nms_batch(*rows((0, np.nan, 9, 9, 0, 0.9), (0, 0, 9, 9, 0, 0.8), (0, 0, 9, 9, 0, 0.7))),
        "infinite coordinates": nms_batch(*rows((0, 0, np.inf, 9, 0, 0.9), (0, 0, 9, 9, 0, 0.8), (0, 0, 9, 9, 0, 0.7), (0, 0, 9, 9, 1, 0.7))),
        "negative threshold": nms_batch(*rows((0, 0, 9, 9, 0, -0.5), (0, 0, 9, 9, 1, 0.5)), score=-1.0),
        "most 1": nms_batch(*crowd(r, 2, 50, 2), most=1),
        "images with and without candidates": nms_batch(crowd(r, 3, 20, 2)[0], crowd(r, 3, 20, 2)[1] * np.array([1, 0, 1])[:, None, None]),
        "more than a hundred": nms_batch(*rows(*((k % 15 * 20, k // 15 * 20, k % 15 * 20 + 10, k // 15 * 20 + 10, 0, 0.9 - k / 1024) for k in range(130)))),
    }
    for count in (1, 63, 64, 65, 1025):
        boxes, scores = crowd(r, 1, count, 1)
        found[f"{count} candidates"] = nms_batch(boxes, scores * 0.9 + 0.06)
    boxes, scores = crowd(r, 1, 2125, 80, 320.0, 0.05)
    found["170,000 candidates before filtering"] = nms_batch(boxes, scores)
    found["170,000 candidates after filtering"] = nms_batch(boxes, np.round(scores * 64) / 128 + 0.25)
    return found


@functools.cache
def assign_truth(key) -> list[tuple]:
    """The twin's answers for every image of a batch: an edge case's name, or the number of a random batch."""
    batch = random_assign(key) if isinstance(key, int) else assign_edges()[key]
    found = []
    for i in range(len(batch["logits"])):
        gt, labels = batch["gt_boxes"][i], batch["gt_labels"][i]
        answer = assign_reference.assign_image(batch["logits"][i], batch["boxes"][i], batch["priors"], gt, labels, batch["ignored"][i],
                                               batch["topk"], batch["iou_factor"], batch["ignore_threshold"])
        found.append((answer, assign_reference.targets(answer[0], answer[1], batch["priors"], gt, labels, batch["logits"].shape[2], batch["limit"])))
    return found


@functools.cache
def nms_truth(key) -> list[tuple]:
    batch = random_nms(key) if isinstance(key, int) else nms_edges()[key]
    return [nms_reference.nms_image(b, s, batch["score"], batch["iou"], batch["most"]) for b, s in zip(batch["boxes"], batch["scores"])]
