"""The scales of the currents in eight bits, from training images."""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn
from tqdm import tqdm

from zoo.errors import ZooError

from ..graph import folded_graph
from ..parts import take_apart
from ..session import create_session, run_session
from .quantised import Currents, convolutions

OUTSIDE = 1e-4
"""Fraction of the currents that a range leaves out at each end; on the other side of the threshold or far below it, the
exact value hardly matters."""
_CHUNK = 16
_SAMPLES = 50_000


def calibrate(model: nn.Module, images: NDArray[np.float32]) -> dict[str, Currents]:
    """How the currents of each convolution over spikes are stored, by the name of its weight.

    Args:
        model: a network of the zoo.
        images: normalised training images [N, C, H, W]: what is measured later must not have part in it.

    Raises:
        ZooError: a network that cannot be exported, or without such a convolution.
    """
    parts = take_apart(model, all_steps=True)
    outputs = {name: node.output[0] for name, node in convolutions(parts).items()}
    if not outputs:
        raise ZooError("no int8: this network has no convolution over spikes with weights of its own")
    proto = folded_graph(parts)
    for value in outputs.values():
        proto.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = create_session(proto.SerializeToString())
    ends: list[NDArray[np.float64]] = []
    for start in tqdm(range(0, len(images), _CHUNK), desc="calibration", leave=False, disable=None):
        chunk = images[start : start + _CHUNK]
        values = run_session(session, list(outputs.values()), chunk)
        sampled = [value.ravel()[:: max(1, value.size // _SAMPLES)] for value in values]
        ends.append(np.array([np.quantile(sample, [OUTSIDE, 1 - OUTSIDE]) for sample in sampled]))
    return {name: stored(low, high) for name, (low, high) in zip(outputs, np.mean(ends, 0), strict=True)}


def stored(low: float, high: float) -> Currents:
    """Currents from `low` to `high` and 0 in a byte."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255, 1e-12))
    return Currents(float(scale), int(np.clip(np.rint(-low / scale), 0, 255)))
