"""Float32 that is float32 on a GPU, too."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions on a GPU compute in float32 inside the block.

    By default PyTorch lets cuDNN round what float32 convolutions multiply to TensorFloat-32, ten bits of mantissa; and
    at a threshold, rounding makes and loses spikes.
    """
    cudnn: Any = torch.backends.cudnn
    convolutions = cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
