"""How graphs of every layout are run: one call, a call with a number of steps, or a call for each time step."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.files import read_bytes
from zoo.neurons.encoding import encode
from zoo.specs import check_timesteps

from .graph import LAYOUT, STATES, metadata
from .images import as_array
from .layouts import TIMESTEPS
from .session import CPU, LARGEST, create_session, run_session


class Stream:
    """A step graph from `to_onnx(layout="step")` in ONNX Runtime, driven frame by frame.

    >>> stream = Stream("model.onnx")
    >>> for frame in frames:  # float32 [B, C, H, W], what the network sees in one time step
    ...     logits = stream.step(frame)  # of this step, [B, classes]
    >>> stream.mean  # over the steps so far: what the network says
    >>> stream.reset()  # before other images

    Args:
        model: the file, or its bytes.
        provider, threads, optimization: as for `export.session.create_session`.
        create: what makes the session; of another runtime, see `export.runtimes`.

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
        create: Callable[..., Any] = create_session,
    ) -> None:
        data = model if isinstance(model, bytes) else read_bytes(model, LARGEST)
        try:
            proto = onnx.load_model_from_string(data)
        except DecodeError as error:
            raise ZooError("not an ONNX file, or cut short: export it again") from error
        about = {p.key: p.value for p in proto.metadata_props}
        if about.get(LAYOUT) != "step":
            found = about.get(LAYOUT) or "a file from elsewhere"
            raise ZooError(f"expected a graph of one time step, got {found}: export with --layout step")
        self.timesteps, self.encoding = metadata(proto, "timesteps"), metadata(proto, "encoding")
        self.size = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:]
        self.outputs = [output.name for output in proto.graph.output]
        self._states = metadata(proto, STATES)
        types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
        try:
            names = [state["input"] for state in self._states]
            self._types = {name: onnx.helper.tensor_dtype_to_np_dtype(types[name]) for name in names}
            if not all({"output", "layer", "shape"} <= state.keys() for state in self._states):
                raise KeyError
        except (LookupError, TypeError, AttributeError):
            raise ZooError(f"the graph's metadata {STATES} do not fit its inputs: export it again") from None
        self._counts = any(state["layer"] is None for state in self._states)
        self._session = create(data, provider=provider, threads=threads, optimization=optimization)
        self.reset()

    def reset(self) -> None:
        """Forget all frames: states start at zero."""
        self.steps, self._batch = 0, 0
        self._values: dict[str, NDArray[Any]] = {}
        self._sum: Any = None

    def step(self, frame: NDArray[np.float32] | torch.Tensor) -> NDArray[np.float32]:
        """The logits [B, classes] of one time step.

        Raises:
            ZooError: the frame is not float32 [B, C, H, W] of this network, its batch is another than before, or each
                step has its parameters and all have had their turn.
        """
        return self.step_all(frame)["logits"]

    def step_all(self, frame: NDArray[np.float32] | torch.Tensor) -> dict[str, NDArray[np.float32]]:
        """All outputs of one time step by name, those of instruments among them; errors as for `step`."""
        frame = as_array(frame)
        if frame.dtype != np.float32 or frame.ndim != 4:
            raise ZooError(f"expected a float32 frame {['B', *self.size]}, got {frame.dtype} {list(frame.shape)}")
        if list(frame.shape[1:]) != self.size or not len(frame):
            raise ZooError(f"expected a float32 frame {['B', *self.size]}, got {list(frame.shape)}")
        if self.steps and len(frame) != self._batch:
            raise ZooError(f"a stream of {self._batch} images got a frame of {len(frame)}: reset() before other images")
        if self._counts and self.steps >= self.timesteps:
            raise ZooError(f"this network has parameters for {self.timesteps} time steps, no more: reset() first")
        if not self.steps:
            self._batch = len(frame)
            for state in self._states:
                shape = [self._batch if n is None else n for n in state["shape"]]
                self._values[state["input"]] = np.zeros(shape, self._types[state["input"]])
        results = run_session(self._session, self.outputs, frame, self._values)
        outputs = dict(zip(self.outputs, results, strict=True))
        self._values = {state["input"]: outputs.pop(state["output"]) for state in self._states}
        self._sum = outputs["logits"] if self._sum is None else self._sum + outputs["logits"]
        self.steps += 1
        return outputs

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean logits of the steps since the last reset, [B, classes].

        Raises:
            ZooError: there were none.
        """
        if not self.steps:
            raise ZooError("no time step yet: call step(frame) first")
        return self._sum / np.float32(self.steps)

    def run(self, images: NDArray[np.float32] | torch.Tensor, timesteps: int | None = None) -> NDArray[np.float32]:
        """Mean logits [B, classes] of whole inputs, from a reset on.

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
    """What the network sees in each time step, [B, C, H, W] each; rate encoding is given its spikes, as frames."""
    given = "frames" if encoding == "rate" else encoding
    channels = images.shape[2 if given == "frames" else 1]
    x, repeat = encode(torch.from_numpy(np.ascontiguousarray(images)), given, timesteps, channels)
    return [x.numpy()] * timesteps if repeat else [step.numpy() for step in x.chunk(timesteps)]


class Runner:
    """A graph of any layout in ONNX Runtime, run on whole inputs.

    Args:
        proto: the graph.
        timesteps: how many steps a step or loop graph takes, those of the network by default.
        optimization, threads: as for `export.session.create_session`.
        create: what makes the session; of another runtime, see `export.runtimes`.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        timesteps: int | None = None,
        *,
        optimization: str = "all",
        threads: int = 0,
        create: Callable[..., Any] = create_session,
    ) -> None:
        data = proto.SerializeToString()
        self.layout = metadata(proto, LAYOUT)
        self.timesteps = metadata(proto, "timesteps") if timesteps is None else timesteps
        how: dict[str, Any] = {"optimization": optimization, "threads": threads}
        self._stream = Stream(data, **how, create=create) if self.layout == "step" else None
        self._session = None if self._stream else create(data, **how)

    def __call__(self, images: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Outputs by name; of a step graph, the mean of the logits, and all else of all steps behind each other."""
        if self._stream is None:
            steps = {TIMESTEPS: np.array(self.timesteps, np.int64)} if self.layout == "loop" else {}
            return run_session(self._session, outputs, images, steps)
        self._stream.reset()
        got = [self._stream.step_all(frame) for frame in frames(images, self._stream.encoding, self.timesteps)]
        return [self._stream.mean if n == "logits" else np.concatenate([step[n] for step in got]) for n in outputs]
