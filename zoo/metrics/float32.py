"""Float32 that is float32 on every device."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions and matrix products compute in float32 inside the block.

    By default PyTorch lets cuDNN round what float32 convolutions multiply to TensorFloat-32, ten bits of mantissa, and
    `torch.set_float32_matmul_precision` does that to matrix products, of a CPU, too; at a threshold, rounding makes and
    loses spikes.
    """
    # PyTorch's older switches know fewer states and cannot be read in others, but rule where they were used last.
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    switches = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, mkldnn.conv, mkldnn.matmul]
    before = [switch.fp32_precision for switch in switches]
    convolutions = _unless_mixed(lambda: cudnn.allow_tf32)
    products = _unless_mixed(torch.get_float32_matmul_precision)
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for switch in switches:
        if switch.fp32_precision not in ("ieee", "none"):
            switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def _unless_mixed(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:  # somebody used the newer switches
        return None
