"""Pictures, videos and a camera in; drawn pictures, JSON and CSV of the detections out (``python -m jt_nanodet demo``)."""
