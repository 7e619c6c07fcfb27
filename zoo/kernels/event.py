"""The event-driven convolution (event.cpp) from Python: its library, and layers over PyTorch tensors.

The same library holds the operator of ONNX Runtime (event_ort.cpp):

    options.register_custom_ops_library(str(build_event_library()))
"""

import ctypes
import functools
import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ZooError, one_of
from .build import build_library, load_library

_SOURCE = Path(__file__).with_name("event_ort.cpp")
_KERNEL = Path(__file__).with_name("event.cpp")
_THREADS = Path(__file__).with_name("event_torch.cpp")
# Instruction sets are picked at run time, so the rest is for any x86-64.
_FLAGS = ["-O3", "-fno-openmp", *(["-march=x86-64"] if platform.machine() == "x86_64" else [])]
INSTRUCTION_SETS = ["portable", "avx2", "avx512"]
"""What the kernel knows, the best one last."""
_PARALLEL = 1 << 15  # elements from which a second thread pays
_Pointer = ctypes.c_void_p


class _Shape(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ("channels", "out_channels", "kernel_h", "kernel_w", "stride_h", "stride_w")
        ),
        *((f"pad_{side}", ctypes.c_int32) for side in ("top", "left", "bottom", "right")),
        *((name, ctypes.c_int32) for name in ("timesteps", "bits", "soft_reset")),
        *((name, ctypes.c_float) for name in ("decay", "gain", "threshold")),
        *((name, ctypes.c_int32) for name in ("isa", "group", "block")),
    ]


class _Call(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "height", "width")),
        *((name, _Pointer) for name in ("spikes", "shortcut", "shortcut_counts", "state")),
        *((name, _Pointer) for name in ("out_spikes", "out_currents", "out_state")),
        ("tasks", ctypes.c_int32),
        *((name, _Pointer) for name in ("parallel_for", "pool")),
    ]


def build_event_library() -> Path:
    """Builds the library, unless the cache holds it, and returns where it is; ZooError says why it cannot."""
    return build_library(_SOURCE, *_flags())


def prepare() -> None:
    """Builds what `EventConv` and `whole_bytes` need, unless the cache holds it; ZooError says why it cannot."""
    _library()
    _threads()


def list_instruction_sets() -> list[str]:
    """Returns those of `INSTRUCTION_SETS` that this processor has."""
    return INSTRUCTION_SETS[: _library().event_best_set()]


def takes_weights(shape: Sequence[int]) -> bool:
    """Returns whether `EventConv` takes weights [C', C, kh, kw]: it has limits, see `sensible` in event.cpp."""
    out_channels, channels, rows, columns = shape
    inputs = channels * rows * columns
    return rows <= 8 and inputs < 2**16 and inputs * out_channels < 2**31


def whole_bytes(x: Tensor, most: int) -> tuple[Tensor, int, float] | None:
    """Whole numbers as uint8, the largest, and the share of them that is not 0; None unless all are whole numbers from
    0 to `most`.

    Args:
        x: float32 on the CPU, contiguous in memory in the order of its axes.
        most: at most 255.
    """
    bytes, found = x.new_empty(x.shape, dtype=torch.uint8), ctypes.c_int64()
    threads = torch.get_num_threads() if x.numel() >= _PARALLEL else 1
    largest = _threads().event_bytes(
        x.data_ptr(), x.numel(), most, bytes.data_ptr(), ctypes.byref(found), ctypes.c_int(threads)
    )
    return None if largest < 0 else (bytes, largest, found.value / max(x.numel(), 1))


def _flags() -> list[str]:
    if (asked := os.environ.get("SNNZOO_INSTRUCTIONS")) and asked not in INSTRUCTION_SETS:
        raise one_of("SNNZOO_INSTRUCTIONS", asked, INSTRUCTION_SETS)
    return [*_FLAGS, f"-DEVENT_CPP={hashlib.sha256(_KERNEL.read_bytes()).hexdigest()[:16]}"]


@functools.cache
def _library() -> ctypes.CDLL:
    library = load_library(_SOURCE, *_flags())
    library.event_layer.restype = _Pointer
    library.event_layer.argtypes = [_Pointer] * 5
    library.event_delete.argtypes = [_Pointer]
    library.event_run.argtypes = [_Pointer] * 2
    return library


@functools.cache
def _threads() -> ctypes.CDLL:
    library = load_library(_THREADS, "-O3")
    library.event_bytes.argtypes = [_Pointer, ctypes.c_int64, ctypes.c_int, _Pointer, _Pointer, ctypes.c_int]
    return library


class EventConv:
    """A convolution over spikes, as event.cpp computes it.

    Args:
        weight: [C', C, kh, kw] over `scale`, whole numbers from -32767 to 32767, or float32. Sums of float32 are in
            another order than a dense convolution's, so currents are equal up to rounding.
        scale, bias: [C'], of the currents.
        stride, padding: of rows and columns; padding above and left, below and right is equal.
        timesteps: T.
        most: largest count of spikes that the input holds, 1 to 15.
        others: of event.cpp's `EventShape`: the numbers of neurons behind it, and what forces a form.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        timesteps: int,
        most: int = 1,
        **others: float,
    ) -> None:
        out_channels, channels, *kernel = weight.shape
        sides = (*kernel, *stride, *padding, *padding)
        self.most = most
        self._shape = _Shape(channels, out_channels, *sides, timesteps, most.bit_length(), **others)
        floats = weight.is_floating_point()
        weight = weight.to(torch.float32 if floats else torch.int16).contiguous()
        scale, bias = (x.float().contiguous() for x in (scale, bias))
        self._library = _library()
        weights = (None, weight.data_ptr()) if floats else (weight.data_ptr(), None)
        self._layer = self._library.event_layer(ctypes.byref(self._shape), *weights, scale.data_ptr(), bias.data_ptr())
        if not self._layer:
            raise ZooError(f"the event-driven kernel takes no convolution {list(weight.shape)} like this")

    def __del__(self) -> None:
        if getattr(self, "_layer", None):
            self._library.event_delete(self._layer)

    def __call__(self, spikes: Tensor, *, tasks: int = 1, threads: int = 1, **others: Tensor | None) -> Tensor:
        """Returns the currents, float32 [T*B, H', W', C'].

        Args:
            spikes: uint8 [T*B, H, W, C], time-major, channels last.
            tasks: into how many tasks the work is cut at most.
            threads: how many run these.
            others: of event.cpp's `EventCall`: further tensors that the kernel reads or writes, contiguous in memory.
        """
        s, (rows, height, width, _) = self._shape, spikes.shape
        high, wide = height + 2 * s.pad_top - s.kernel_h, width + 2 * s.pad_left - s.kernel_w
        sides = (high // s.stride_h + 1, wide // s.stride_w + 1)
        if min(sides) < 1:
            raise ZooError(f"maps of {[height, width]} are smaller than the kernel")
        currents = spikes.new_empty((rows, *sides, s.out_channels), dtype=torch.float32)
        tensors = {"spikes": spikes.contiguous(), "out_currents": currents} | others
        addresses = {name: x.data_ptr() for name, x in tensors.items() if x is not None}
        call = _Call(rows // s.timesteps, height, width, tasks=tasks, pool=threads, **addresses)
        if tasks > 1:
            call.parallel_for = ctypes.cast(_threads().event_threads, _Pointer)
        if self._library.event_run(self._layer, ctypes.byref(call)):
            raise ZooError(f"the event-driven kernel takes no maps {list(spikes.shape)}")
        return currents
