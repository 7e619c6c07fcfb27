"""Sessions of other runtimes, on one thread of a CPU, for a batch of one."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from zoo.errors import ZooError

_BATCH = 1


class OtherSession(Protocol):
    """What is asked of a session, as of ONNX Runtime's."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
        """The outputs of these names."""


class Runtime(NamedTuple):
    """A runtime that is a package of Python's."""

    module: str
    package: str
    """As pip calls it."""
    create: Callable[[Any, Path], OtherSession]
    """From the module and a file to a session."""

    def load(self) -> Any:
        """Its module.

        Raises:
            ZooError: it is not installed.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ZooError(f"{self.package} is not installed: pip install {self.package}") from error


class _Function(NamedTuple):
    """A session that is a function from inputs to all outputs by name."""

    call: Callable[[Mapping[str, NDArray[Any]]], Mapping[str, Any]]

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
        """See `OtherSession`."""
        found = self.call({name: np.require(value, requirements="C") for name, value in inputs.items()})
        return [np.array(found[name]) for name in outputs]


def _openvino(ov: Any, file: Path, precision: str | None) -> OtherSession:
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = ov.Core().compile_model(str(file), "CPU", settings)
    request = compiled.create_infer_request()

    def call(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        request.infer(dict(inputs))
        found = zip(
            compiled.outputs, (request.get_output_tensor(i).data for i in range(len(compiled.outputs))), strict=True
        )
        return {name: value.copy() for output, value in found for name in output.names}

    return _Function(call)


def _opencv(cv2: Any, file: Path) -> OtherSession:
    cv2.setNumThreads(1)
    network, names = cv2.dnn.readNetFromONNX(str(file)), _names(file)[1]

    def call(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        for name, value in inputs.items():
            network.setInput(value, name)
        return dict(zip(names, network.forward(names), strict=True))

    return _Function(call)


def _tract(tract: Any, file: Path) -> OtherSession:
    model, (inputs, outputs) = tract.onnx().load(str(file)), _names(file)
    for i, value in enumerate(onnx.load(file).graph.input):
        sizes = [dim.dim_value or _BATCH for dim in value.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        model.set_input_fact(i, ",".join(map(str, [*sizes, f"{kind.kind}{8 * kind.itemsize}"])))
    ready = model.into_model().into_runnable()

    def call(given: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        found = ready.run([given[name] for name in inputs])
        return {name: value.to_numpy() for name, value in zip(outputs, found, strict=True)}

    return _Function(call)


def _names(file: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(file).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


RUNTIMES = {
    "openvino": Runtime("openvino", "openvino", lambda ov, file: _openvino(ov, file, "f32")),
    "openvino-default": Runtime("openvino", "openvino", lambda ov, file: _openvino(ov, file, None)),
    "opencv": Runtime("cv2", "opencv-python-headless", _opencv),
    "tract": Runtime("tract", "tract", _tract),
}
"""By name. OpenVINO is there twice: told to compute in float32, and as it chooses, which is bfloat16 on processors that
have it. MNN is not there: its converter installs packages into the environment that it runs in, unasked."""
