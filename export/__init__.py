"""How a trained network leaves PyTorch: a verified, time-unrolled ONNX graph, and what it costs in ONNX Runtime.

>>> export.to_onnx(model, "model.onnx")["verification"]["real"]["flip_rate"]
>>> export.benchmark("model.onnx", images, labels)["spikes_per_image"]
"""

from .benchmark import benchmark
from .to_onnx import to_onnx
from .verify import verify

__all__ = ["benchmark", "to_onnx", "verify"]
