"""How a trained network leaves PyTorch: a verified ONNX graph in a layout of four, and what it costs to run.

>>> export.to_onnx(model, "model.onnx")["verification"]["real"]["flip_rate"]
>>> export.benchmark("model.onnx", images, labels)["spikes_per_image"]
"""

from .bench import benchmark
from .nir import to_nir
from .run import Stream, event_library
from .to_onnx import to_onnx
from .verify import verify

__all__ = ["Stream", "benchmark", "event_library", "to_nir", "to_onnx", "verify"]
