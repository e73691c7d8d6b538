"""Pascal VOC: fetched, unpacked, converted to COCO's JSON, verified, cut to a mini set, scored by its own rules (``python -m jt_nanodet voc``)."""

#: The 20 classes, in the order of their numbers (devkit's VOCinit.m).
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
