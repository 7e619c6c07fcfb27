"""A copy of a network whose arithmetic is exact in float32, so that any two right implementations agree bit for bit.

Weights become small integers times a power of two, batch normalisation becomes an affine map with a power of two, decay
and threshold become multiples of 1/4. Every sum of products is then exact in whatever order it is taken. (Membrane
potentials may need more bits than float32 has after many steps, but they are computed element by element, in one
order.) A mean over positions is exact if their number is a power of two: where it is not, as for 96 or 224 pixels, the
copy takes smaller images; and its average pools take windows of the next power of two, in PyTorch and in its graph.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from zoo.errors import ZooError
from zoo.neurons import IF, LIF, PLIF, PSN, SpikingNeuron

from .file import SPIKES, add_description
from .graph import finished, folded
from .int8 import doubling, exact_in_bytes, int8_graph
from .network import build_graph, inference_copy, take_apart
from .run import Runner

BATCHES = (1, 3)
GRID = 64
"""Inputs, biases and means are multiples of 1 / GRID."""

_SMALLEST = 8
"""Pixels a side that networks take, but for their strides."""
_NOTHING = torch.finfo(torch.float32).tiny
"""What rounding takes away again from every variance it is added to: PyTorch 2.11 refuses an eps of 0."""
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Linear)
_STRENGTHS = (1, 2, 4, 8)
"""Factors of the exact currents of eight bits, tried in turn until every layer spikes."""
Run = tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]
"""Images, and what the graph must give for them: "logits", and the spikes [T*B, ...] under their names in the graph."""


class Twin(NamedTuple):
    """The graph of an exact copy, and what it must give."""

    graph: onnx.ModelProto
    runs: list[Run]
    """One for each of `BATCHES`."""
    other: str
    """What gave it, for errors."""


def exact_twin(model: nn.Module, layout: str, precision: str) -> Twin:
    """Returns the exact copy of a network in this form, and what PyTorch gives; of eight bits, what float32 gives."""
    exact = exact_copy(model)
    images = [exact_images(exact, count, seed=count) for count in BATCHES]
    if precision == "int8":
        other, (graph, runs) = "float32's", _in_bytes(exact, [x.numpy() for x in images])
    else:
        other, graph, runs = "PyTorch's", build_graph(exact, layout, precision), []
        for x in images:
            logits, spikes = run_in_pytorch(exact, x)
            known = {f"{name}/{SPIKES}": array.numpy() for name, array in spikes.items()}
            runs.append((x.numpy(), known | {"logits": logits.numpy()}))
    return Twin(add_description(graph, exact), runs, other)


def _in_bytes(exact: nn.Module, images: list[NDArray[np.float32]]) -> tuple[onnx.ModelProto, list[Run]]:
    """Returns the graph in eight bits, and what the one in float32 gives, as it is written."""
    unit, network = current_unit(exact), take_apart(exact, all_steps=True)
    for strength in _STRENGTHS:
        parts, rounded = exact_in_bytes(network, strength * unit)
        graph = finished(parts, folded(parts))
        run = Runner(graph, 1, optimization="disable", spikes=True)
        names = [*run.values.values(), "logits"]
        runs = [(x, dict(zip(names, run(x, names), strict=True))) for x in images]
        if all(any(given[name].any() for _, given in runs) for name in names):
            break
    return int8_graph(parts, rounded), runs


@torch.no_grad()
def run_in_pytorch(network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns logits [B, classes] and the spikes [T*B, ...] of each neuron layer."""
    spikes: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda layer, inputs, output: spikes.__setitem__(name, output.to(torch.int8))

    handles = [
        layer.register_forward_hook(keep(name))
        for name, layer in network.named_modules()
        if isinstance(layer, SpikingNeuron)
    ]
    try:
        return network(images), spikes
    finally:
        for handle in handles:
            handle.remove()


def exact_images(network: Any, count: int, seed: int = 0) -> Tensor:
    """Returns random images [count, C, H, W] or frames, multiples of 1/64 in [-2, 2), in [0, 1] for latency."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (0, GRID + 1) if network.encoding == "latency" else (-2 * GRID, 2 * GRID)
    return torch.randint(low, high, (count, *network.input_shape), generator=generator) / GRID


@torch.no_grad()
def exact_copy(model: nn.Module) -> Any:
    """Returns the exact copy, in evaluation mode, with currents scaled so that every neuron layer spikes.

    The size of its images is in its pretrained_cfg, and the network's own if that pools over powers of two.
    """
    exact = inference_copy(model)
    _make_windows_exact(exact)
    _make_pools_exact(exact)
    for layer in exact.modules():
        if isinstance(layer, SpikingNeuron):
            _round_neuron(layer)
    unit = current_unit(exact)
    handles = []
    for module in exact.modules():
        if isinstance(module, _NORMS):
            handles.append(module.register_forward_pre_hook(functools.partial(_calibrate_norm, unit)))
        elif isinstance(module, _LINEAR):
            module.weight.copy_(_small_integers(module.weight))
            if module.bias is not None:
                bias = _on_grid(module.bias).clamp_(-0.5, 0.5)
                # The exporter leaves out a bias of zeros, and the copy would be another graph.
                module.bias.copy_(bias if bias.any() else module.bias.sign() / GRID)
            handles.append(module.register_forward_pre_hook(functools.partial(_calibrate_weights, unit)))
    # One forward calibrates layer after layer, each on what the calibrated ones before it send.
    exact(exact_images(exact, 4))
    for handle in handles:
        handle.remove()
    return exact


def _make_windows_exact(exact: Any) -> None:
    """Makes each forward of a network, in PyTorch and when it is traced, run under `_WiderWindows`."""
    kind = type(exact)

    @functools.wraps(kind.forward)  # the exporter reads its signature
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _WiderWindows():
            return kind.forward(self, *args, **kwargs)

    exact.__class__ = type(kind.__name__, (kind,), {"forward": forward})


class _WiderWindows(TorchFunctionMode):
    """Average pools over maps, of modules or functions, whose windows have a power of two positions, zeros outside."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_pool if func is F.avg_pool2d else func)(*args, **(kwargs or {}))


def _pool(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *others: Any, **named: Any) -> Tensor:
    """Returns what `avg_pool2d` gives, or one with wider windows in its place: its result has the same shape."""
    pair = lambda value: [value] * 2 if isinstance(value, int) else list(value)  # noqa: E731
    kernel, step, begin = pair(kernel_size), pair(stride or kernel_size), pair(padding)
    y = F.avg_pool2d(x, kernel, step, begin, *others, **named)
    if all(map(_is_power, kernel)) and not any(begin):
        return y
    wider = [2 ** (side - 1).bit_length() for side in kernel]
    end = [max((int(y.shape[i + 2]) - 1) * step[i] + wider[i] - int(x.shape[i + 2]) - begin[i], 0) for i in (0, 1)]
    if torch.compiler.is_exporting():
        about: dict[str, Any] = {"kernel_shape": wider, "strides": step, "pads": [*begin, *end], "count_include_pad": 1}
        return torch.onnx.ops.symbolic("::AveragePool", (x,), about, dtype=x.dtype, shape=y.shape)
    return F.avg_pool2d(F.pad(x, (begin[1], end[1], begin[0], end[0])), wider, step)


def _make_pools_exact(exact: Any) -> None:
    """Brings the images to a power of two pixels a side, if a pool over whole maps has another number of positions; or
    if none is seen, as a mean is none, and the network takes such images."""
    channels, *sides = exact.pretrained_cfg["input_size"]
    positions = _pooled(exact)
    if all(map(_is_power, positions or sides)):
        return
    before: Any = exact.pretrained_cfg
    smaller = [2 ** (side.bit_length() - 1) for side in sides]
    exact.pretrained_cfg = before | {"input_size": (channels, *smaller)}
    if not positions:
        try:
            _pooled(exact)
        except Exception:  # of whatever kind: it is built for its size
            exact.pretrained_cfg = before
        return
    # A stem of stride 3, say, leaves a power of two of another number of pixels.
    for size in [smaller, *([side] * len(sides) for side in range(min(smaller) - 1, _SMALLEST - 1, -1)), smaller]:
        exact.pretrained_cfg = before | {"input_size": (channels, *size)}
        if all(map(_is_power, _pooled(exact))):
            return


def _pooled(network: Any) -> list[int]:
    """Returns the number of positions that each pool over whole maps sees."""
    positions: list[int] = []
    found = [module for module in network.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    pools = [pool for pool in found if pool.output_size in (1, (1, 1), [1, 1])]
    handles = [pool.register_forward_pre_hook(lambda _, x: positions.append(x[0][0, 0].numel())) for pool in pools]
    try:
        network(torch.zeros(1, *network.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return positions


def _is_power(number: int) -> bool:
    """Returns whether it is a power of two."""
    return not number & (number - 1)


def _round_neuron(layer: SpikingNeuron) -> None:
    """Rounds decay, threshold and what else sums see to multiples of 1/4.

    Other neurons keep their numbers: their membranes are computed element by element, in one order, whatever the
    numbers. Neurons that int8 doubles (`doubling`) still are such ones, and others are not.
    """
    if "threshold" in vars(layer):  # and is no parameter or property of a user's
        layer.threshold = max(round(4 * layer.threshold), 1) / 4
    doubled = doubling(layer, layer.timesteps) is not None
    if isinstance(layer, PLIF):
        layer.w.copy_(_w_of(0.5 if doubled else 0.75))
    elif isinstance(layer, LIF) and not isinstance(layer, IF) and "decay" in vars(layer):
        decay = float(layer.decay)
        layer.decay = min(max(round(4 * decay), 1), 3) / 4
        if (doubling(layer, layer.timesteps) is not None) != doubled:
            layer.decay = decay if doubled else 0.75
    elif isinstance(layer, PSN) and layer.timesteps == 1:
        layer.weight.fill_(1)  # a small weight, or one below 0, would never fire
        layer.bias.copy_((4 * layer.bias).round_() / 4)
    elif isinstance(layer, PSN):
        for parameter in (layer.weight, layer.bias):
            parameter.copy_((4 * parameter).round_() / 4)


def _w_of(decay: float) -> Tensor:
    """Returns PLIF's parameter, with which its decay is exactly this."""
    w = torch.tensor(math.log((1 - decay) / decay))
    for _ in range(8):
        if 1 - torch.sigmoid(w) == decay:
            return w
        w = torch.nextafter(w, torch.tensor(math.copysign(math.inf, (1 - torch.sigmoid(w) - decay).item())))
    raise ZooError(f"no parameter gives PLIF neurons a decay of {decay} here")


@torch.no_grad()
def current_unit(model: nn.Module) -> float:
    """Returns the power of two near the current that takes a neuron at rest to its threshold in one step."""
    least = lambda number: float(torch.as_tensor(number).min())  # noqa: E731 # of channels, where it is theirs
    layers = (layer for layer in model.modules() if isinstance(layer, SpikingNeuron))
    needed = max(least(layer.threshold) / least(layer.gain) for layer in layers)
    return 2.0 ** round(math.log2(max(needed, 2.0**-10)))  # a threshold may be 0 or less


def _calibrate_norm(unit: float, norm: Any, inputs: tuple[Tensor, ...]) -> None:
    channels = inputs[0].transpose(0, 1).flatten(1)
    exponent = _nearest_exponent(channels.std(1, correction=0))
    norm.eps = _NOTHING
    norm.running_mean.copy_(_on_grid(channels.mean(1)))
    norm.running_var.copy_(torch.ldexp(torch.ones_like(norm.running_var), 2 * exponent))
    if norm.affine:
        norm.weight.fill_(unit)
        norm.bias.copy_(_on_grid(norm.bias).clamp_(-0.5, 0.5))


def _calibrate_weights(unit: float, layer: Any, inputs: tuple[Tensor, ...]) -> None:
    # Without the bias, which stays on the grid: the root mean square of the output becomes about one unit.
    x, weight = inputs[0], layer.weight
    y = nn.functional.linear(x, weight) if isinstance(layer, nn.Linear) else layer._conv_forward(x, weight, None)
    exponent = _nearest_exponent(y.square().mean().sqrt())
    weight.copy_(torch.ldexp(weight * unit, -exponent))


def _small_integers(weight: Tensor) -> Tensor:
    """Returns the nearest multiples of half a standard deviation, as integers of at most 8 over GRID."""
    if not weight.std(correction=0) > 1e-12:  # a pruned layer, whose neurons are to spike here
        weight = torch.ones_like(weight).flatten().cumsum(0).cos().view_as(weight)
    step = weight.std(correction=0).clamp_min(1e-12) / 2
    return (weight / step).round_().clamp_(-8, 8) / GRID


def _on_grid(x: Tensor) -> Tensor:
    return (x * GRID).round_() / GRID


def _nearest_exponent(x: Tensor) -> Tensor:
    return x.clamp_min(2.0**-8).log2().round_()
