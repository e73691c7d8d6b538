"""What a training run needs beside a framework: options, log, scalars for TensorBoard, files on disk, curves. Both sides use it."""
