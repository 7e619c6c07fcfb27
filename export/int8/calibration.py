"""What eight bits take from training images: the range of the currents, and how weights are best rounded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from tqdm import tqdm

import zoo
from zoo.data.folder import check_folder
from zoo.data.images import square_side
from zoo.errors import ZooError

from ..graph import folded_graph
from ..images import check_source, is_file, network_inputs, read_images
from ..parts import input_size, take_apart
from ..run import create_session, run_session
from .quantised import Rounded, convolutions
from .rounding import least_change, moments

OUTSIDE = 1e-3
"""Fraction of the currents that a range leaves out at each end; on the other side of the threshold or far below it, the
exact value hardly matters."""
_CHUNK = 16
_SAMPLES = 50_000
"""Currents of a chunk that its range is from."""
_ROWS = 1000
"""Positions of a chunk that second moments are from."""
_DEFAULTS = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}


def training_images(model: nn.Module, data: str | None, root: str | None, count: int) -> NDArray[np.float32]:
    """Normalised images for `calibrate`.

    Args:
        model: a network of the zoo.
        data: a data set, whose first training images are taken, or a file; by default what the network was trained on.
        root: where data sets are.
        count: how many images, at most.

    Raises:
        ZooError: no such data, images that do not fit, or a count below 1.
    """
    if count < 1:
        raise ZooError(f"--calibration-images must be 1 or more, not {count}")
    if data is None:
        data = (getattr(model, "training_args", None) or {}).get("dataset")
        if data is None:
            raise ZooError("int8 needs training images, and this network tells no data set: --calibration names one")
        check_folder(data, "--calibration")
    check_source(model, data)
    if is_file(data):
        images = read_images(data, count)[0]
    else:
        images = zoo.load_dataset(data, root, img_size=square_side(input_size(model))).train_images[:count].numpy()
    return network_inputs(model, images)


def calibrate(model: nn.Module, images: NDArray[np.float32]) -> dict[str, Rounded]:
    """Each convolution over spikes in eight bits, by the name of its weight.

    Args:
        model: a network of the zoo.
        images: normalised training images [N, C, H, W]: what is measured later must not have part in it.

    Raises:
        ZooError: a network that cannot be exported, or without such a convolution.
    """
    parts = take_apart(model, all_steps=True)
    names = list(convolutions(parts))
    if not names:
        raise ZooError("no int8: this network has no convolution over spikes with weights of its own")
    proto = folded_graph(parts)
    by_weight = {node.input[1]: node for node in proto.graph.node if node.op_type == "Conv"}
    nodes = [by_weight[name] for name in names]
    weights = [numpy_helper.to_array(parts.skeleton.piece.constants[name]) for name in names]
    ranges, sums = _look(proto, nodes, weights, images)
    rounded = {}
    for name, weight, (low, high) in tqdm(
        list(zip(names, weights, ranges, strict=True)), desc="rounding", leave=False, disable=None
    ):
        rounded[name] = Rounded(*stored(low, high), least_change(weight, sums.pop(0)))
    return rounded


def _look(
    proto: onnx.ModelProto, nodes: Sequence[NodeProto], weights: Sequence[NDArray[Any]], images: NDArray[np.float32]
) -> tuple[NDArray[np.float64], list[Tensor]]:
    """Ends of the range of each convolution's currents, and second moments of its inputs."""
    values = list(dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0])))
    for value in values:
        proto.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = create_session(proto.SerializeToString())
    ends: list[NDArray[np.float64]] = []
    sums: list[Any] = [0] * len(nodes)
    for start in tqdm(range(0, len(images), _CHUNK), desc="calibration", leave=False, disable=None):
        got = dict(zip(values, run_session(session, values, images[start : start + _CHUNK]), strict=True))
        samples = [got[node.output[0]].ravel() for node in nodes]
        samples = [value[:: max(1, value.size // _SAMPLES)] for value in samples]
        ends.append(np.array([np.quantile(sample, [OUTSIDE, 1 - OUTSIDE]) for sample in samples]))
        for i, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
            x = torch.from_numpy(got[node.input[0]])
            form = [list(weight.shape[2:]), *(_integers(node, key) for key in _DEFAULTS)]
            sums[i] = sums[i] + moments(x, *form, groups=x.shape[1] // weight.shape[1], rows=_ROWS)
    return np.mean(ends, 0), sums


def _integers(node: NodeProto, key: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == key), _DEFAULTS[key])


def stored(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of currents from `low` to `high` and 0 in a byte."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255, 1e-12))
    return float(scale), int(np.clip(np.rint(-low / scale), 0, 255))
