"""ONNX Runtime sessions that run where and how they were asked to."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from zoo.errors import ZooError, one_line, one_of

CPU = "CPUExecutionProvider"
LARGEST = 2**30
"""Bytes of a file that is read."""
_CUDA = "CUDAExecutionProvider"
_ON_CUDA = (_CUDA, "TensorrtExecutionProvider")
_OF_BYTES = (b"QLinearConv", b"QuantizeLinear")
_PATIENCE = 40
"""Seconds for an image."""

# From none to all; each contains the ones before. LAYOUT came with ONNX Runtime 1.23 or so.
_LEVELS = {name: f"ORT_ENABLE_{name.upper()}" for name in ("basic", "extended", "layout", "all")}
OPTIMIZATIONS = {
    name: getattr(ort.GraphOptimizationLevel, level)
    for name, level in {"disable": "ORT_DISABLE_ALL", **_LEVELS}.items()
    if hasattr(ort.GraphOptimizationLevel, level)
}


def check_session(provider: str, optimization: str) -> None:
    """Raise ZooError for an optimisation that there is not, or a provider that does not start: before long work."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    least = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    create_session(least.SerializeToString(), provider=provider, optimization=optimization, threads=1)


def _check_names(provider: str, optimization: str) -> None:
    if optimization not in OPTIMIZATIONS:
        raise one_of("optimization", optimization, list(OPTIMIZATIONS))
    if provider not in ort.get_all_providers():
        raise one_of("provider", provider, ort.get_all_providers())
    if provider not in ort.get_available_providers():
        raise ZooError(_unavailable(provider))


def _unavailable(provider: str) -> str:
    return f"{provider} does not work on this machine; available here: {CPU}"


def device_of(provider: str) -> str:
    """Where a provider's tensors are, "cpu" or "cuda"."""
    return "cuda" if provider in _ON_CUDA else "cpu"


def create_session(
    model: bytes, *, provider: str = CPU, optimization: str = "all", threads: int = 0, profile: Path | None = None
) -> ort.InferenceSession:
    """A session on exactly `provider`.

    Args:
        model: a serialised ONNX model.
        provider: ONNX Runtime's name: CPUExecutionProvider, CUDAExecutionProvider ...
        optimization: one of `OPTIMIZATIONS`.
        threads: threads within an operator; 0 lets ONNX Runtime choose.
        profile: where the session's profile goes when it ends; a prefix of the file's name.

    Raises:
        ZooError: unknown optimisation or provider, a provider that does not work here or has none for int8
            convolutions, a broken model.
    """
    _check_names(provider, optimization)
    options = ort.SessionOptions()
    options.graph_optimization_level = OPTIMIZATIONS[optimization]
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    ort.set_default_logger_severity(4)  # a provider that fails to load is an error below, not a log
    if provider in _ON_CUDA and any(kind in model for kind in _OF_BYTES):
        # It would run them in float32, or on the CPU, without a word.
        raise ZooError(
            f"{provider} does not run convolutions over bytes as int8 graphs have them: use --provider {CPU}"
        )
    # As in PyTorch here, float32 is not TensorFloat-32.
    asked: list[Any] = [(provider, {"use_tf32": "0"}) if provider == _CUDA else provider]
    try:
        session = ort.InferenceSession(model, options, providers=asked)
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise ZooError(f"ONNX Runtime cannot load the model: {one_line(error)}") from error
    # Asked for a provider that it cannot start, ONNX Runtime falls back to the CPU without an error.
    if session.get_providers()[0] != provider:
        raise ZooError(_unavailable(provider))
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
    with _within_patience(x.shape) as options:
        return session.run(list(outputs), {"input": x, **(others or {})}, options)


def bind(
    session: ort.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]
) -> Callable[[], Any]:
    """A run from inputs that are on the provider's device to outputs that stay there: a call runs, and gives them.

    The first run is made here, errors and patience as for `run_session`; those that follow have none to slow them.

    Args:
        session: of any provider.
        outputs: names.
        inputs: by name; the first axis of the first one is the batch.
    """
    device = device_of(session.get_providers()[0])
    binding = session.io_binding()
    with _within_patience(next(iter(inputs.values())).shape) as options:
        for output in outputs:
            binding.bind_output(output, device)
        values = {name: ort.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in inputs.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        session.run_with_iobinding(binding, options)

    def run() -> Any:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding.get_outputs()

    return run


@contextlib.contextmanager
def _within_patience(shape: Sequence[int]) -> Iterator[ort.RunOptions]:
    """Options for a run that is stopped after a while, and its errors as ZooErrors."""
    options, limit = ort.RunOptions(), _PATIENCE + 10 * (shape[0] - 1 if shape else 0)
    timer = threading.Timer(limit, setattr, (options, "terminate", True))
    timer.daemon = True
    begin = time.monotonic()
    timer.start()
    try:
        yield options
    except Exception as error:  # as above
        if time.monotonic() - begin >= limit:
            raise ZooError(f"the model does not end within {limit} s on {shape[0]} images: it was stopped") from error
        raise ZooError(f"ONNX Runtime cannot run the model on {list(shape)}: {one_line(error)}") from error
    finally:
        timer.cancel()
