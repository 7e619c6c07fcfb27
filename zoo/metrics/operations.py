"""Synaptic operations, by NeuroBench's definitions, and products of activations beside them.

An operation is effective where both factors, input and weight, are not 0. Over a layer, those of an input are its
fan-out: the weights that it meets and that are not 0, fewer at a border, for padding is no input. The fan-out of every
input of a map is one small backward pass, and the operations are, exactly,

    sum over inputs of (how often it was not 0, over images and time steps) x (its fan-out)

so nothing runs twice: while the network runs, a layer's inputs are only counted. Dense operations are the same with
every input and every weight taken for not 0.
"""

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..layers import Hadamard, MatMul
from ..network import unwrapped
from .spikes import Counter, is_spikes, once

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers with synapses."""
# Layers with weights that nothing here counts.
_OTHERS = (nn.RNNBase, nn.RNNCellBase, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear)


class Operations(NamedTuple):
    """The operations of one layer or product, over all images."""

    effective: int
    dense: int
    binary: bool
    """Whether an operation is an accumulation (AC): all inputs, or all of one factor of a product, are -1, 0 or 1.
    Otherwise it is a multiply-accumulation (MAC)."""


class OperationCounter(Counter):
    """Counts the operations of `model` in the forwards run inside a `with` block.

    >>> with OperationCounter(model) as counter:
    ...     model(images)
    >>> counter.summary()["Effective_ACs"]

    Memory is that of one map for each layer, for any number of images. Weights must stay as they are until the counts
    are read. Arguments are those of `Counter`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        modules = dict(unwrapped(model).named_modules())
        self._layers = {name: module for name, module in modules.items() if isinstance(module, LAYERS)}
        self._products = {name: module for name, module in modules.items() if isinstance(module, MatMul | Hadamard)}
        self._unknown = [name for name, module in modules.items() if isinstance(module, _OTHERS)]
        self._inputs: dict[tuple[str, torch.Size, bool], _Inputs] = {}
        self._pairs: dict[str, tuple[int, int, bool, bool]] = {}  # effective, dense, binary left and right
        self._batch, self._fired = 0, False

    def layers(self) -> dict[str, Operations]:
        """Returns the operations of every layer that ran, over all images."""
        return _sum((key[0], self._of(*key)) for key in self._inputs)

    def products(self) -> dict[str, Operations]:
        return {name: Operations(n, dense, a or b) for name, (n, dense, a, b) in self._pairs.items()}

    def summary(self) -> dict[str, Any]:
        """Returns the mean operations per image, under NeuroBench's names.

        Returns:
            Effective_ACs, Effective_MACs, Dense: of convolutions and linear layers. Null, with a warning, if one of
                the network's layers never ran as a module, or is of a kind that is not counted.
            products: the same three of products of activations (`MatMul`, `Hadamard`), which are no part of the above.
            stem: the same three of layers that run once for all time steps (direct encoding), which are a part of the
                above; a network that runs them at each of T steps has T - 1 times these more.
        """
        if not self.images:
            raise ZooError("no operations were counted: call the network, with images, inside the `with` block first")
        layers = self.layers()
        missing = self._unknown + [name for name in self._layers if name not in layers]
        if missing:
            warnings.warn(f"operations are not known: layer {missing[0]!r} ran in a way not counted", stacklevel=2)
            return dict.fromkeys([*_totals([]), "products", "stem"])
        stem = _sum((name, self._of(name, shape, once)) for name, shape, once in self._inputs if once)
        per_image = lambda of: {key: n / self.images for key, n in _totals(of.values()).items()}  # noqa: E731
        return {**per_image(layers), "products": per_image(self.products()), "stem": per_image(stem)}

    def _hooks(self) -> Iterator[Any]:
        for neuron in self.neurons.values():
            yield neuron.register_forward_hook(self._note_spikes)
        for name, layer in self._layers.items():
            yield layer.register_forward_pre_hook(once(partial(self._see, name)), with_kwargs=True)
        for name, product in self._products.items():
            yield product.register_forward_pre_hook(once(partial(self._multiply, name)), with_kwargs=True)

    def _start(self, model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        before = self.images
        super()._start(model, inputs, named)
        self._batch, self._fired = self.images - before, False

    def _note_spikes(self, *_: Any) -> None:
        self._fired = True

    def _see(self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        x = [*inputs, *named.values()][0].detach()
        once = not self._fired and len(x) == self._batch
        if isinstance(layer, nn.Linear):
            x = x.reshape(-1, x.shape[-1])
        key = name, x.shape[1:], once
        if key not in self._inputs:
            self._inputs[key] = _Inputs(torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device))
        self._inputs[key].add(x)

    def _multiply(self, name: str, product: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        a, b = (x.detach() for x in (*inputs, *named.values()))
        effective, dense = (_matrix_pairs if isinstance(product, MatMul) else _element_pairs)(a, b)
        before, all_dense, left, right = self._pairs.get(name, (0, 0, True, True))
        binary = left and _is_binary(a), right and _is_binary(b)
        self._pairs[name] = before + effective, all_dense + dense, *binary

    def _of(self, name: str, shape: torch.Size, once: bool) -> Operations:
        inputs, layer = self._inputs[name, shape, once], self._layers[name]
        weight: Any = layer.weight
        effective = (inputs.counts.cpu() * _fan_out(layer, shape, weight.detach() != 0)).sum()
        dense = inputs.rows * _fan_out(layer, shape, torch.ones_like(weight)).sum()
        return Operations(int(effective), int(dense), inputs.binary)


class _Inputs:
    """How often each input of a layer was not 0, out of `rows` times, and whether all were -1, 0 or 1."""

    def __init__(self, counts: Tensor) -> None:
        self.counts, self.rows, self.binary = counts, 0, True

    def add(self, x: Tensor) -> None:
        self.rows += len(x)
        if not is_spikes(x):
            self.binary = self.binary and _is_binary(x)
            x = (x != 0).to(torch.float32)
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            counts = x.movedim(1, -1).sum(0, dtype=torch.float32).movedim(-1, 0)  # ten times as fast in memory's order
        else:
            counts = x.sum(0, dtype=torch.float32)
        self.counts += counts  # exact: no batch has 2^24 rows


def _fan_out(layer: Any, shape: torch.Size, weight: Tensor) -> Tensor:
    """For each input of a map of that shape, the sum of the weights that it meets, on the CPU in float64."""
    with torch.inference_mode(False), torch.enable_grad():
        weight = weight.cpu().to(torch.float64)
        if isinstance(layer, nn.Linear):
            return weight.sum(0)
        # The layer itself, whatever its padding, stride and dilation, since what it does is linear; its outputs of one
        # group are summed first, so that it has one channel for each group.
        weight = weight.unflatten(0, (layer.groups, -1)).sum(1)
        x = torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True)
        y: Tensor = layer._conv_forward(x, weight, None)
        return torch.autograd.grad(y.sum(), x)[0][0]


def _is_binary(x: Tensor) -> bool:
    """Returns whether all are -1, 0 or 1."""
    return torch.equal(x, x.sign())


def _matrix_pairs(a: Tensor, b: Tensor) -> tuple[int, int]:
    """Returns the pairs of elements that a @ b multiplies: those with two factors that are not 0, and all."""
    left, right = (a != 0).sum(-2, dtype=torch.float64), (b != 0).sum(-1, dtype=torch.float64)
    meet = left * right
    return int(meet.sum()), meet.numel() * a.shape[-2] * b.shape[-1]


def _element_pairs(a: Tensor, b: Tensor) -> tuple[int, int]:
    """Returns the same of a * b."""
    meet = (a != 0) & (b != 0)
    return int(meet.sum()), meet.numel()


def _sum(named: Iterable[tuple[str, Operations]]) -> dict[str, Operations]:
    """By name; a layer with several entries (it ran over maps of several shapes) has one label."""
    total: dict[str, Operations] = {}
    for name, new in named:
        old = total.get(name, Operations(0, 0, True))
        total[name] = Operations(old.effective + new.effective, old.dense + new.dense, old.binary and new.binary)
    return total


def _totals(of: Iterable[Operations]) -> dict[str, int]:
    every = list(of)
    return {
        "Effective_ACs": sum(o.effective for o in every if o.binary),
        "Effective_MACs": sum(o.effective for o in every if not o.binary),
        "Dense": sum(o.dense for o in every),
    }
