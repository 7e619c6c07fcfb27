"""ONNX Runtime sessions that run where and how they were asked to."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from zoo.errors import ZooError, one_line, one_of

CPU = "CPUExecutionProvider"
_PATIENCE = 40
"""Seconds for an image."""

# From none to all; each contains the ones before. LAYOUT came with ONNX Runtime 1.23 or so.
_LEVELS = {name: f"ORT_ENABLE_{name.upper()}" for name in ("basic", "extended", "layout", "all")}
OPTIMIZATIONS = {
    name: getattr(ort.GraphOptimizationLevel, level)
    for name, level in {"disable": "ORT_DISABLE_ALL", **_LEVELS}.items()
    if hasattr(ort.GraphOptimizationLevel, level)
}


def create_session(
    model: bytes, *, provider: str = CPU, optimization: str = "all", threads: int = 0
) -> ort.InferenceSession:
    """A session on exactly `provider`.

    Args:
        model: a serialised ONNX model.
        provider: ONNX Runtime's name: CPUExecutionProvider, CUDAExecutionProvider ...
        optimization: one of `OPTIMIZATIONS`.
        threads: threads within an operator; 0 lets ONNX Runtime choose.

    Raises:
        ZooError: unknown optimisation or provider, a provider that does not work here, a broken model.
    """
    if optimization not in OPTIMIZATIONS:
        raise one_of("optimization", optimization, list(OPTIMIZATIONS))
    if provider not in ort.get_all_providers():
        raise one_of("provider", provider, ort.get_all_providers())
    unavailable = f"{provider} does not work on this machine; available here: {CPU}"
    if provider not in ort.get_available_providers():
        raise ZooError(unavailable)
    options = ort.SessionOptions()
    options.graph_optimization_level = OPTIMIZATIONS[optimization]
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    ort.set_default_logger_severity(4)  # a provider that fails to load is an error below, not a log
    try:
        session = ort.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise ZooError(f"ONNX Runtime cannot load the model: {one_line(error)}") from error
    # Asked for a provider that it cannot start, ONNX Runtime falls back to the CPU without an error.
    if session.get_providers()[0] != provider:
        raise ZooError(unavailable)
    return session


def run_session(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    x: NDArray[np.float32],
    others: Mapping[str, NDArray[Any]] | None = None,
) -> list[NDArray[Any]]:
    """The named outputs for "input" and `others`; whatever ONNX Runtime raises becomes a ZooError.

    A file may hold a loop without end: a run that takes longer than `_PATIENCE` and ten seconds for each further image
    is stopped.
    """
    options, limit = ort.RunOptions(), _PATIENCE + 10 * (len(x) - 1)
    timer = threading.Timer(limit, setattr, (options, "terminate", True))
    timer.daemon = True
    begin = time.monotonic()
    timer.start()
    try:
        return session.run(list(outputs), {"input": x, **(others or {})}, options)
    except Exception as error:  # as above
        if time.monotonic() - begin >= limit:
            raise ZooError(f"the model does not end within {limit} s on {len(x)} images: it was stopped") from error
        raise ZooError(f"ONNX Runtime cannot run the model on {list(x.shape)}: {one_line(error)}") from error
    finally:
        timer.cancel()
