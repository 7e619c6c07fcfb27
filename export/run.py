"""Runs graphs in ONNX Runtime: sessions that are where they were asked to be, and graphs of every layout in them."""

import functools
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime.capi import build_and_package_info

from zoo.errors import ZooError, one_line, one_of, shown
from zoo.files import read_bytes
from zoo.kernels.event import build_event_library
from zoo.neurons.encoding import encode
from zoo.specs import check_timesteps

from .commands import LEVELS
from .event import OPERATOR
from .file import add_spike_outputs, metadata, texts
from .graph import TIMESTEPS
from .images import as_array

CPU = "CPUExecutionProvider"
LARGEST_VALUE = 2**28
"""Entries of any value in a graph, for one image: more cannot be computed with here."""
_LARGEST = 2**30
"""Bytes of a file that is read."""
_SMALL = 1024
"""Entries of a constant that may say a shape."""
_MOST_NODES = 1_000_000
"""Nodes of a graph with the nodes of its functions, and of theirs."""
_LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_LAYOUT", "ENABLE_ALL")
OPTIMIZATIONS = {
    name: getattr(ort.GraphOptimizationLevel, f"ORT_{level}") for name, level in zip(LEVELS, _LEVELS, strict=True)
}
"""ONNX Runtime's levels of graph optimisation."""
_CUDA = "CUDAExecutionProvider"
_ON_CUDA = (_CUDA, "TensorrtExecutionProvider")
_EVENTS = OPERATOR.encode()
_LEAST = '<ir_version: 7, opset_import: ["": 13]> least (float[1] x) => (float[1] y) { y = Relu(x) }'


def read_model(file: str | os.PathLike[str] | bytes) -> tuple[bytes, onnx.ModelProto]:
    """Reads an ONNX file of anybody, or its bytes: these, and what they hold.

    Raises:
        ZooError: it cannot be read, is broken, holds NaN or values that are too large, or its weights are elsewhere.
    """
    path, data = ("the graph", file) if isinstance(file, bytes) else (file, read_bytes(file, _LARGEST))
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ZooError(f"{path} is not an ONNX file, or was cut short: export it again") from error
    _check_constants(proto, path)
    _check_functions(proto, path)
    _check_sizes(proto, path)
    return data, proto


def _check_constants(proto: onnx.ModelProto, path: object) -> None:
    """Raises ZooError if a number in a graph, however deep, is NaN, or lies in another file."""
    for graph in _graphs(proto.graph, *proto.functions):
        tensors, sparse = list(getattr(graph, "initializer", ())), list(getattr(graph, "sparse_initializer", ()))
        for attribute in (a for node in graph.node for a in node.attribute):
            sparse += [*attribute.sparse_tensors, *[attribute.sparse_tensor][: attribute.HasField("sparse_tensor")]]
            tensors += [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
            if any(math.isnan(number) for number in (attribute.f, *attribute.floats)):
                raise ZooError(f"{path} holds NaN, in an attribute {shown(attribute.name)}: it cannot be measured")
        if sparse:  # which ONNX Runtime takes in place of a dense one of the same name
            raise ZooError(f"{path} holds sparse tensors: only dense ones are read")
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ZooError(f"{path} keeps {shown(tensor.name)} in another file: only whole files are read")
            try:
                array = onnx.numpy_helper.to_array(tensor)
                broken = array.dtype.kind == "f" and np.isnan(array).any()
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise ZooError(f"{path}: the tensor {shown(tensor.name)} is broken: {one_line(error)}") from error
            if broken:
                raise ZooError(f"{path} holds NaN, in {shown(tensor.name)}: it cannot be measured")


def _graphs(*graphs: Any) -> Iterator[Any]:
    """Yields graphs or functions, and the graphs in their nodes, however deep."""
    rest = list(graphs)
    while rest:
        yield (graph := rest.pop())
        for attribute in (a for node in graph.node for a in node.attribute):
            rest += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _check_functions(proto: onnx.ModelProto, path: object) -> None:
    """Raises ZooError if functions that call functions are more nodes than anybody could put in their place."""
    bodies: dict[Any, Any] = {(function.domain, function.name): function for function in proto.functions}
    names = {key: Counter((n.domain, n.op_type) for g in _graphs(body) for n in g.node) for key, body in bodies.items()}
    calls, total = Counter((n.domain, n.op_type) for g in _graphs(proto.graph) for n in g.node), 0
    while calls:
        if (total := total + calls.total()) > _MOST_NODES:
            raise ZooError(f"{path}: its functions call functions, of more than {_MOST_NODES:,} nodes in all")
        deeper = Counter[Any]()
        for key, times in calls.items():
            deeper.update({called: times * count for called, count in names.get(key, {}).items()})
        calls = deeper


def _check_sizes(proto: onnx.ModelProto, path: object) -> None:
    """Raises ZooError if a value would fill the memory, such as a constant that is computed when a session is made, as
    far as its shape can be inferred."""
    graph, known = proto.graph, {value.name for value in proto.graph.input}
    small = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _SMALL]
    large = [t for t in graph.initializer if math.prod(t.dims) > _SMALL and t.name not in known]
    infos = [onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in large]
    light = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    light.graph.MergeFrom(onnx.GraphProto(name="light", node=graph.node, output=graph.output, initializer=small))
    light.graph.input.extend([*graph.input, *infos])  # weights are not copied
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception:  # a session says what is wrong
        return
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        if math.prod(max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim) > LARGEST_VALUE:
            raise ZooError(f"{path}: the value {shown(value.name)} is too large to be computed")


def device_of(provider: str) -> str:
    """Returns where a provider's tensors are, "cpu" or "cuda"."""
    return "cuda" if provider in _ON_CUDA else "cpu"


def check_session(provider: str, optimization: str) -> None:
    """Raises ZooError for an unknown optimisation or a provider that does not start: before long work."""
    least = onnx.parser.parse_model(_LEAST).SerializeToString()
    create_session(least, provider=provider, optimization=optimization, threads=1)


def event_library() -> str:
    """Returns the file for `onnxruntime.SessionOptions.register_custom_ops_library`, built at its first use.

    With it, the nodes of event-driven files (see `export.event`) skip zeros; without it, their functions run. It takes
    AVX-512, AVX2 or portable code as the processor has them; SNNZOO_INSTRUCTIONS=avx2 or portable asks for less.

    Raises:
        ZooError: there is no compiler, or it fails.
    """
    return str(build_event_library())


def has_event_library() -> bool:
    """Returns whether event-driven nodes run in the kernel here."""
    return _library() is not None


@functools.cache
def _library() -> str | None:
    try:
        library = event_library()
        ort.SessionOptions().register_custom_ops_library(library)  # one that is damaged, or for another ONNX Runtime
        return library
    except Exception as error:  # ONNX Runtime's errors have no common class
        warnings.warn(f"{one_line(error)}; event-driven nodes run as standard operators", stacklevel=3)
        return None


def create_session(
    model: bytes,
    *,
    provider: str = CPU,
    optimization: str = "all",
    threads: int = 0,
    profile: Path | None = None,
    functions: bool = False,
) -> ort.InferenceSession:
    """Creates a session that runs on exactly `provider`.

    Args:
        model: a serialised ONNX model.
        provider: ONNX Runtime's name: CPUExecutionProvider, CUDAExecutionProvider ...
        optimization: one of `OPTIMIZATIONS`.
        threads: threads within an operator; 0 lets ONNX Runtime choose.
        profile: where the session's profile goes when it ends; a prefix of the file's name.
        functions: run the functions of event-driven nodes, as where there is no `event_library`, not the kernel.

    Raises:
        ZooError: unknown optimisation or provider, a provider that does not work here or has none for int8
            convolutions, a broken model.
    """
    if optimization not in OPTIMIZATIONS:
        raise one_of("optimization", optimization, list(OPTIMIZATIONS))
    if provider not in ort.get_all_providers():
        raise one_of("provider", provider, ort.get_all_providers())
    if provider in _ON_CUDA and (b"QLinearConv" in model or b"QuantizeLinear" in model):
        # It would run them in float32, or on the CPU, without a word.
        raise ZooError(
            f"{provider} does not run convolutions over bytes as int8 graphs have them: use --provider {CPU}"
        )
    options = ort.SessionOptions()
    options.graph_optimization_level = OPTIMIZATIONS[optimization]
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not functions and provider == CPU and _EVENTS in model and (library := _library()):
        options.register_custom_ops_library(library)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    ort.set_default_logger_severity(4)  # a provider that fails to load is an error below, not a log
    works = provider in ort.get_available_providers()
    if works:
        # As in PyTorch here, float32 is not TensorFloat-32.
        asked: list[Any] = [(provider, {"use_tf32": "0"}) if provider == _CUDA else provider]
        try:
            session = ort.InferenceSession(model, options, providers=asked)
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise ZooError(f"ONNX Runtime cannot load the model: {one_line(error)}") from error
        # Asked for a provider that it cannot start, ONNX Runtime falls back to the CPU without an error.
        works = session.get_providers()[0] == provider
    if not works:
        cuda = getattr(build_and_package_info, "cuda_version", "")
        needed = f" (it needs the libraries of CUDA {cuda})" if cuda and provider in _ON_CUDA else ""
        raise ZooError(f"{provider} does not work on this machine{needed}; available here: {CPU}")
    return session


def run_session(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    x: NDArray[np.float32],
    others: Mapping[str, NDArray[Any]] | None = None,
) -> list[NDArray[Any]]:
    """Returns the named outputs for "input" and `others`; whatever ONNX Runtime raises becomes a ZooError."""
    try:
        return session.run(list(outputs), {"input": x, **(others or {})})
    except Exception as error:  # as above
        raise ZooError(f"ONNX Runtime cannot run the model on {list(x.shape)}: {one_line(error)}") from error


def bind(
    session: ort.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]
) -> Callable[[], Any]:
    """Binds inputs that are on the provider's device to outputs that stay there, and runs once.

    Returns:
        A function that runs the session and returns the outputs.
    """
    device = device_of(session.get_providers()[0])
    binding = session.io_binding()

    def run() -> Any:
        assert values  # which live as long as this function: not every binding holds what is bound to it
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding.get_outputs()

    try:
        for output in outputs:
            binding.bind_output(output, device)
        values = {name: ort.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in inputs.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        run()
    except Exception as error:  # as above
        shapes = ", ".join(str(list(array.shape)) for array in inputs.values())
        raise ZooError(f"ONNX Runtime cannot run the model on {shapes}: {one_line(error)}") from error
    return run


def at_once(pixels: int, steps: int, images: NDArray[np.float32]) -> int:
    """Returns how many images [N, ..., H, W] have so many pixels in all time steps: how many to run together, where
    all that is inside a network is kept."""
    return max(1, pixels // (steps * images.shape[-2] * images.shape[-1]))


class Stream:
    """A step graph from `to_onnx(layout="step")` in ONNX Runtime, which takes frame after frame.

    >>> stream = Stream("model.onnx")
    >>> for frame in frames:  # float32 [B, C, H, W], what the network sees in one time step
    ...     logits = stream.step(frame)  # of this step, [B, classes]
    >>> stream.mean  # over the steps so far: what the network says
    >>> stream.reset()  # before other images

    Args:
        model: the file, or its bytes.
        provider, threads, optimization, functions: as for `export.run.create_session`.

    Raises:
        ZooError: a file that cannot be read, or of another layout.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        provider: str = CPU,
        threads: int = 0,
        optimization: str = "all",
        functions: bool = False,
    ) -> None:
        data, proto = read_model(model)
        layout = texts(proto).get("layout", "a file from elsewhere")
        if layout != "step":
            raise ZooError(f"expected a graph of one time step, got {layout}: export with --layout step")
        self.timesteps, self.encoding = metadata(proto, "timesteps"), metadata(proto, "encoding")
        self.outputs = [output.name for output in proto.graph.output]
        inputs = {value.name: value.type.tensor_type for value in proto.graph.input}
        shapes = {
            name: [max(dim.dim_value, 0) for dim in kind.shape.dim] for name, kind in inputs.items()
        }  # 0 for the batch
        self._states = {name: (shapes[name], kind.elem_type) for name, kind in inputs.items() if name != "input"}
        self.size = shapes.get("input", [])[1:]
        large = any(math.prod(max(n, 1) for n in shape) > LARGEST_VALUE for shape in shapes.values())
        if len(self.size) != 3 or large or not {"logits", *(f"new_{name}" for name in self._states)} <= {*self.outputs}:
            raise ZooError("this graph of one time step has other inputs and outputs than ours: export it again")
        how: dict[str, Any] = {"provider": provider, "threads": threads, "optimization": optimization}
        self._session = create_session(data, **how, functions=functions)
        self.reset()

    def reset(self) -> None:
        """Forgets all frames: states start at zero."""
        self.steps, self._batch = 0, 0
        self._values: dict[str, NDArray[Any]] = {}
        self._sum: Any = np.float32(0)

    def step(self, frame: NDArray[np.float32] | torch.Tensor) -> NDArray[np.float32]:
        """Returns the logits [B, classes] of one time step.

        Raises:
            ZooError: the frame is not float32 [B, C, H, W] of this network, or its batch is another than before.
        """
        return self.step_all(frame)["logits"]

    def step_all(self, frame: NDArray[np.float32] | torch.Tensor) -> dict[str, NDArray[np.float32]]:
        """Returns all outputs of one time step by name, those of instruments among them; errors as for `step`."""
        frame = as_array(frame)
        if frame.dtype != np.float32 or frame.ndim != 4 or list(frame.shape[1:]) != self.size or not len(frame):
            raise ZooError(f"expected a float32 frame {['B', *self.size]}, got {frame.dtype} {list(frame.shape)}")
        if self.steps and len(frame) != self._batch:
            raise ZooError(f"a stream of {self._batch} images got a frame of {len(frame)}: reset() before other images")
        if not self.steps:
            self._batch = len(frame)
            for name, (shape, kind) in self._states.items():
                dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
                self._values[name] = np.zeros([n or self._batch for n in shape], dtype)
        results = run_session(self._session, self.outputs, frame, self._values)
        outputs = dict(zip(self.outputs, results, strict=True))
        self._values = {name: outputs.pop(f"new_{name}") for name in self._states}
        self._sum = self._sum + outputs["logits"]
        self.steps += 1
        return outputs

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean logits of the steps since the last reset, [B, classes]."""
        if not self.steps:
            raise ZooError("no time step yet: call step(frame) first")
        return self._sum / np.float32(self.steps)

    def run(self, images: NDArray[np.float32] | torch.Tensor, timesteps: int | None = None) -> NDArray[np.float32]:
        """Returns the mean logits [B, classes] of whole inputs, from a reset on.

        Args:
            images: what a flat graph of this network takes.
            timesteps: how many steps, those of the training by default.

        Raises:
            ZooError: as for `step`, or fewer than one step.
        """
        steps = self.timesteps if timesteps is None else check_timesteps(timesteps)
        inputs = ["B", *(["T"] if self.encoding in ("frames", "rate") else []), *self.size]
        images = as_array(images)
        if images.ndim != len(inputs):
            raise ZooError(f"expected float32 images {inputs}, got {list(images.shape)}")
        self.reset()
        for frame in frames(images, self.encoding, steps):
            self.step(frame)
        return self.mean


def frames(images: NDArray[np.float32], encoding: str, timesteps: int) -> list[NDArray[np.float32]]:
    """Returns what the network sees in each time step, [B, C, H, W] each; rate encoding takes its spikes as frames."""
    given = "frames" if encoding == "rate" else encoding
    channels = images.shape[2 if given == "frames" else 1]
    x, repeat = encode(torch.from_numpy(np.ascontiguousarray(images)), given, timesteps, channels)
    return [x.numpy()] * timesteps if repeat else [step.numpy() for step in x.chunk(timesteps)]


class Runner:
    """A graph of any layout in ONNX Runtime, run on whole inputs.

    Args:
        proto: the graph.
        timesteps: how many steps a step or loop graph takes, those of the network by default.
        spikes: give the spikes of every layer, too, by the names in `values`.
        optimization, threads, functions: as for `export.run.create_session`.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        timesteps: int | None = None,
        *,
        spikes: bool = False,
        optimization: str = "all",
        threads: int = 0,
        functions: bool = False,
    ) -> None:
        data = (add_spike_outputs(proto) if spikes else proto).SerializeToString()
        self.layout, self.values = metadata(proto, "layout"), metadata(proto, "spike_values")
        self.timesteps = metadata(proto, "timesteps") if timesteps is None else timesteps
        how: dict[str, Any] = {"optimization": optimization, "threads": threads, "functions": functions}
        self._stream = Stream(data, **how) if self.layout == "step" else None
        self._session = None if self._stream else create_session(data, **how)

    def __call__(self, images: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Returns outputs by name; of a step graph, the mean of the logits, and all else of all steps in turn."""
        if self._stream is None:
            steps = {TIMESTEPS: np.array(self.timesteps, np.int64)} if self.layout == "loop" else {}
            return run_session(self._session, outputs, images, steps)
        self._stream.reset()
        got = [self._stream.step_all(frame) for frame in frames(images, self._stream.encoding, self.timesteps)]
        return [self._stream.mean if n == "logits" else np.concatenate([step[n] for step in got]) for n in outputs]
