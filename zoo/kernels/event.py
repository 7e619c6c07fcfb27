"""The event-driven convolution (event.cpp) from Python: its library, and layers over PyTorch tensors.

The same library holds the operator of ONNX Runtime (event_ort.cpp):

    options.register_custom_ops_library(str(build_event_library()))
"""

import ctypes
import functools
import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ZooError
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
        *((name, ctypes.c_int32) for name in ("timesteps", "bits", "soft_reset", "count")),
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
    """Builds the library, unless the cache holds it, and returns where it is.

    Raises:
        ZooError: it cannot be built; the message says why.
    """
    return build_library(_SOURCE, *_flags())


def prepare() -> None:
    """Builds what `EventConv` and `whole_bytes` need, unless the cache holds it; ZooError says why it cannot."""
    _library()
    _threads()


def list_instruction_sets() -> list[str]:
    """Those of `INSTRUCTION_SETS` that this processor has.

    Raises:
        ZooError: the library cannot be built or loaded.
    """
    return INSTRUCTION_SETS[: _library().event_best_set()]


def whole_bytes(x: Tensor, most: int) -> tuple[Tensor, int, float] | None:
    """Whole numbers as uint8, the largest, and the share of them that is not 0; None unless all are whole numbers from
    0 to `most`.

    Args:
        x: float32 on the CPU, contiguous in memory in the order of its axes.
        most: at most 255.

    Raises:
        ZooError: the library cannot be built or loaded.
    """
    bytes, found = torch.empty(x.shape, dtype=torch.uint8), ctypes.c_int64()
    threads = torch.get_num_threads() if x.numel() >= _PARALLEL else 1
    largest = _threads().event_bytes(
        x.data_ptr(), x.numel(), most, bytes.data_ptr(), ctypes.byref(found), ctypes.c_int(threads)
    )
    return None if largest < 0 else (bytes, largest, found.value / max(x.numel(), 1))


def _flags() -> list[str]:
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
    """A convolution over spikes with LIF neurons behind it, as event.cpp computes it, or without.

    Args:
        weight: [C', C, kh, kw] over `scale`, whole numbers from -32767 to 32767, or float32. Sums of float32 are in
            another order than a dense convolution's, so currents are equal up to rounding.
        scale, bias: [C'], of the currents.
        stride, padding: of rows and columns; padding above and left, below and right is equal.
        timesteps: T.
        most: largest count of spikes that the input holds, 1 to 15.
        neurons: decay, gain, threshold and soft_reset of LIF neurons; None for currents.
        count: `shortcut` counts are added to the spikes instead of the currents.
        instruction_set, group, block: to force one of `INSTRUCTION_SETS`, the planes of a group (1, 2, 4; 8: the
            table), the channels of a block (32, 64, 128); by default the kernel chooses.

    Raises:
        ZooError: the library cannot be built, or the kernel does not take such a layer.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        timesteps: int = 4,
        most: int = 1,
        neurons: dict[str, Any] | None = None,
        count: bool = False,
        instruction_set: str | None = None,
        group: int = 0,
        block: int = 0,
    ) -> None:
        out_channels, channels, *kernel = weight.shape
        isa = 0 if instruction_set is None else 1 + INSTRUCTION_SETS.index(instruction_set)
        given = {"decay": 0.5, "gain": 1.0, "threshold": 1.0, "soft_reset": False} | (neurons or {})
        self._shape = _Shape(channels, out_channels, *kernel, *stride, *padding, *padding)
        self._shape.timesteps, self._shape.bits, self._shape.count = timesteps, most.bit_length(), count
        self._neurons = neurons is not None
        self._shape.isa, self._shape.group, self._shape.block = isa, group, block
        for name, value in given.items():
            setattr(self._shape, name, value)
        floats = weight.is_floating_point()
        weight = weight.to(torch.float32 if floats else torch.int16).contiguous()
        scale, bias = (x.float().contiguous() for x in (scale, bias))
        self._library = _library()
        self._layer = self._library.event_layer(
            ctypes.byref(self._shape),
            *map(_address, (weight, weight), (not floats, floats)),
            *map(_address, (scale, bias)),
        )
        if not self._layer:
            raise ZooError(f"the event-driven kernel takes no convolution {list(weight.shape)} like this")

    def __del__(self) -> None:
        if getattr(self, "_layer", None):
            self._library.event_delete(self._layer)

    def __call__(
        self,
        spikes: Tensor,
        shortcut: Tensor | None = None,
        state: Tensor | None = None,
        *,
        currents: bool = False,
        tasks: int = 1,
        threads: int = 0,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Spikes, currents and last membrane potentials, each None where there is none.

        Args:
            spikes: uint8 [T*B, H, W, C], time-major, channels last.
            shortcut: what is added, [T*B, H', W', C'], currents in float32 or counts in uint8.
            state: membrane potentials before the first step, float32 [B, H', W', C']; zeros by default. The last ones
                are returned only if it is given.
            currents: whether currents are returned where there are neurons; without neurons they always are.
            tasks: into how many tasks the work is cut at most.
            threads: how many run these; by default they run one after the other.

        Raises:
            ZooError: maps smaller than the kernel.
        """
        s = self._shape
        rows, height, width, _ = spikes.shape
        batch = rows // s.timesteps
        out = [(height + 2 * s.pad_top - s.kernel_h) // s.stride_h + 1]
        out += [(width + 2 * s.pad_left - s.kernel_w) // s.stride_w + 1, s.out_channels]
        if min(out) < 1:
            raise ZooError(f"maps of {[height, width]} are smaller than the kernel")
        spikes = spikes.contiguous()
        shortcut, state = (None if x is None else x.contiguous() for x in (shortcut, state))
        fired = torch.empty(rows, *out, dtype=torch.uint8) if self._neurons else None
        current = torch.empty(rows, *out) if currents or not self._neurons else None
        last = torch.empty(batch, *out) if state is not None else None
        call = _Call(batch, height, width, _address(spikes), tasks=tasks)
        counts = shortcut is not None and shortcut.dtype is torch.uint8
        call.shortcut, call.shortcut_counts = _address(shortcut, not counts), _address(shortcut, counts)
        call.state, call.out_state = _address(state), _address(last)
        call.out_spikes, call.out_currents = _address(fired), _address(current)
        if tasks > 1:
            call.parallel_for = ctypes.cast(_threads().event_threads if threads else _in_turn, _Pointer)
            call.pool = threads
        if self._library.event_run(self._layer, ctypes.byref(call)):
            raise ZooError(f"the event-driven kernel takes no maps {list(spikes.shape)}")
        return fired, current, last


def _address(x: Tensor | None, given: bool = True) -> int | None:
    return None if x is None or not given else x.data_ptr()


_Task = ctypes.CFUNCTYPE(None, _Pointer, ctypes.c_size_t)


@ctypes.CFUNCTYPE(None, _Pointer, _Task, _Pointer, ctypes.c_size_t)
def _in_turn(_pool: Any, task: Any, data: Any, count: int) -> None:
    for i in reversed(range(count)):
        task(data, i)
