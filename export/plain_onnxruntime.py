"""Classifies pictures by a file of `snn-zoo export`, without snn-zoo: plain_onnxruntime.py MODEL.onnx IMAGE ..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
size, prepare, classes = (json.loads(about[key]) for key in ("input_size", "prepare", "num_classes"))
labels = json.loads(about.get("labels", "null")) or [f"class {i}" for i in range(classes)]
mean, std = (np.array(json.loads(about[key]), np.float32)[:, None, None] for key in ("mean", "std"))
side, scaled = size[1], int(size[1] / prepare["crop_pct"])

layout, encoding = about["layout"], json.loads(about["encoding"])
if layout == "loop" or encoding not in ({"direct"} if layout == "step" else {"direct", "latency"}):
    sys.exit(f"not written here: layout {layout} of encoding {encoding}; export --layout flat of direct or latency")
if prepare["crop_mode"] != "center" or size != [3, side, side]:
    sys.exit(f"not written here: images {size}, prepared with crop_mode {prepare['crop_mode']}")


def classify(x: np.ndarray) -> np.ndarray:
    """Returns the logits of one image [1, C, H, W]."""
    if layout != "step":
        return session.run(["logits"], {"input": x})[0]
    # One call is one time step: membrane potentials go in and come out, and all begin with zero.
    states = json.loads(about["states"])
    outputs = ["logits", *(state["output"] for state in states)]
    values = [np.zeros([n or 1 for n in state["shape"]], np.float32) for state in states]
    total = np.zeros((1, classes), np.float32)
    for _ in range(json.loads(about["timesteps"])):
        now = dict(zip((state["input"] for state in states), values, strict=True))
        logits, *values = session.run(outputs, {"input": x} | now)
        total += logits
    return total


for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    # The shorter side is scaled, then the centre cut out.
    width, height = (scaled * length // min(image.size) for length in image.size)
    image = image.resize((width, height), Image.Resampling[prepare["interpolation"].upper()])
    left, top = round((width - side) / 2), round((height - side) / 2)
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32).transpose(2, 0, 1) / 255
    print(path, labels[classify(((pixels - mean) / std)[None])[0].argmax()])
