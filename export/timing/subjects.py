"""What is timed: a graph in ONNX Runtime, a network in PyTorch."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from zoo.errors import ZooError, one_line
from zoo.metrics.evaluation import without_tf32

from ..session import CPU, bind, create_session, device_of
from .inputs import Input


class Graph(NamedTuple):
    """A graph in ONNX Runtime, inputs and outputs on the provider's device (I/O binding)."""

    name: str
    data: bytes
    inputs: list[Input]
    """The first takes `images` and noise beyond them, the others zeros."""
    outputs: list[str]
    provider: str = CPU
    optimization: str = "all"
    images: NDArray[np.float32] | None = None

    @property
    def device(self) -> str:
        """See `Subject`."""
        return device_of(self.provider)

    @contextlib.contextmanager
    def ready(self, batch: int, threads: int) -> Iterator[Callable[[], Any]]:
        """See `Subject`."""
        session = create_session(self.data, provider=self.provider, optimization=self.optimization, threads=threads)
        run: Any = bind(session, self.outputs, self.feeds(batch))
        try:
            yield run
        finally:
            del run, session

    def feeds(self, batch: int) -> dict[str, NDArray[Any]]:
        """What one run is given."""
        first, *others = self.inputs
        fed = {first.name: first.noise(batch) if self.images is None else _repeated(self.images, batch)}
        return fed | {other.name: other.zeros(batch) for other in others}


class Network(NamedTuple):
    """A network in PyTorch, eager or compiled, in float32, neurons in the fused kernel where there is one."""

    name: str
    model: nn.Module
    size: Sequence[int]
    device: str = "cpu"
    compiled: bool = False

    @contextlib.contextmanager
    def ready(self, batch: int, threads: int) -> Iterator[Callable[[], Any]]:
        """See `Subject`."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode(), without_tf32():
                yield self._run(batch)
        finally:
            torch.set_num_threads(before)

    def _run(self, batch: int) -> Callable[[], Any]:
        model: Any = self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = torch.compile(model) if self.compiled else model
        draw = np.random.default_rng(0)
        x = torch.from_numpy(draw.standard_normal((batch, *self.size), dtype=np.float32)).to(self.device)
        x = x.contiguous(memory_format=torch.channels_last)

        def once() -> None:
            run(x)
            if self.device == "cuda":
                torch.cuda.synchronize()

        try:
            once()
        except Exception as error:  # of the compiler that PyTorch needs for it
            if not self.compiled:
                raise
            raise ZooError(f"torch.compile does not work here: {one_line(error)}") from error
        return once


def graph_of(proto: onnx.ModelProto, name: str, **how: Any) -> Graph:
    """A graph of ours that is in no file."""
    (value,) = proto.graph.input
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
    return Graph(name, proto.SerializeToString(), [Input(value.name, "float32", (0, *shape))], ["logits"], **how)


def _repeated(images: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.resize(images, (batch, *images.shape[1:])))
