"""Encodings in ONNX: what the first convolution sees at each time step, from the input of a whole graph."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from .assembly import Assembly

Frames = Callable[[Assembly, str, str], str]
"""Appends the frame of a time step, given the name of a value that holds it (int64, no axes) and a prefix for names."""


def input_shape(encoding: str, size: tuple[int, ...], timesteps: int | str) -> tuple[int | str, ...]:
    """The shape of the input of all steps, without the batch: frames where the encoding needs them.

    Rate encoding draws random numbers, which a graph does not: it takes the spikes that the encoder made, as frames.
    """
    return (timesteps, *size) if encoding in ("frames", "rate") else size


def frames_of(g: Assembly, encoding: str, last_step: str) -> Frames | None:
    """How a graph makes the frame of a time step; None where every step sees the image itself.

    Args:
        g: where nodes that all steps share are appended.
        encoding: see `zoo.neurons.encoding`.
        last_step: name of a value that holds T - 1, float32.
    """
    if encoding == "direct":
        return None
    if encoding in ("frames", "rate"):
        return lambda inner, t, prefix: inner.op("Gather", ["input", t], f"{prefix}/frame", axis=1)
    # latency: a spike at step round((T - 1) (1 - p)), a tie to the even step; none for 0.
    zero, one = g.constant("zero", np.float32(0)), g.constant("one", np.float32(1))
    p = g.op("Clip", ["input", zero, one], "latency/brightness")
    late = g.op("Mul", [last_step, g.op("Sub", [one, p], "latency/rest")], "latency/late")
    seen, never = g.op("Greater", [p, zero], "latency/seen"), g.constant("latency/never", np.float32(-1))
    when = g.op("Where", [seen, g.op("Round", [late], "latency/step"), never], "latency/spike_at")

    def frame(inner: Assembly, t: str, prefix: str) -> str:
        clock = inner.op("Cast", [t], f"{prefix}/clock", to=TensorProto.FLOAT)
        now = inner.op("Equal", [when, clock], f"{prefix}/now")
        return inner.op("Cast", [now], f"{prefix}/frame", to=TensorProto.FLOAT)

    return frame
