"""Rate-based backpropagation for trials: spikes go forward at every time step, gradients back once, by firing rates.

Yu et al. 2024, arXiv 2410.11488. A layer of neurons counts as a function from its mean current c = mean_t I[t] to its
rate r = mean_t s[t], whose slope is what the dynamics say when all steps' currents move together:

    dr/dc = 1/T sum_t sum_(u <= t) ds[t] / dI[u]

At T = 1 that is the gradient of full backpropagation through time. A training step takes a forward at T steps without
a graph and one with it at one step, in place of both at T.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.files import write_json
from zoo.models._resnet import resnet_shape
from zoo.models.ms_resnet import MaxResNet
from zoo.neurons.base import SpikingNeuron, input_current, unfold_steps
from zoo.provenance import provenance
from zoo.scaling.layers import SpikingConv2d


def rate_logits(forward: Callable[..., Tensor], network: zoo.SpikingNetwork, x: Tensor) -> Tensor:
    """Returns logits [T, B, classes] of images [B, C, H, W] by `forward`, the network's own, in training mode; their
    gradients are those of the rates. Of a network of convolutions, batch normalisation, sums, pooling and neurons."""
    steps, seen = network.timesteps, dict[nn.Module, Any]()
    first: Any = {SpikingNeuron: _fire, nn.BatchNorm2d: _normalise}
    with torch.no_grad(), _forwards(network, first, seen):
        logits = forward(x, per_step=True)
    network.set_timesteps(1)
    again: Any = {SpikingNeuron: _rate, nn.BatchNorm2d: _normalise_again, SpikingConv2d: _convolve}
    try:
        with _forwards(network, again, seen):
            mean = forward(x)
    finally:
        network.set_timesteps(steps)
    return logits + (mean - mean.detach())


@contextlib.contextmanager
def _forwards(
    network: nn.Module, others: dict[type, Callable[..., Tensor]], seen: dict[nn.Module, Any]
) -> Iterator[None]:
    """Inside, modules of these kinds run by these functions, which get the module and what was seen of each."""
    replaced = [(m, f) for m in network.modules() for kind, f in others.items() if isinstance(m, kind)]
    for module, function in replaced:
        module.forward = functools.partial(function, module, seen)
    try:
        yield
    finally:
        for module, _ in replaced:
            del module.forward


def _fire(neuron: Any, seen: dict[nn.Module, Any], x: Tensor, **how: Any) -> Tensor:
    currents = input_current(x, neuron.timesteps, **how)
    with torch.enable_grad():
        currents = currents.detach().requires_grad_()
        spikes = type(neuron).forward(neuron, currents)
        (slope,) = torch.autograd.grad(spikes, currents, torch.full_like(spikes, 1 / neuron.timesteps))
    spikes = spikes.detach()
    seen[neuron] = _sum(spikes, neuron.timesteps) / neuron.timesteps, _sum(slope, neuron.timesteps)
    return spikes


def _rate(neuron: Any, seen: dict[nn.Module, Any], x: Tensor, **how: Any) -> Tensor:
    current = input_current(x, 1, **how)
    rate, slope = seen[neuron]
    return rate + slope * (current - current.detach())


def _sum(x: Tensor, timesteps: int) -> Tensor:
    return functools.reduce(torch.add, unfold_steps(x, timesteps).unbind(0))  # faster than sum(0) in bfloat16


def _normalise(norm: Any, seen: dict[nn.Module, Any], x: Tensor) -> Tensor:
    norm.num_batches_tracked += 1
    running = norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
    y, _, seen[norm] = torch.native_batch_norm(x, norm.weight, norm.bias, *running)
    return y


def _normalise_again(norm: Any, seen: dict[nn.Module, Any], x: Tensor) -> Tensor:
    """Of mean currents, whose mean is that of all currents, and whose variance is less."""
    _, _, inverse = torch.native_batch_norm(x.detach(), None, None, None, None, True, 0.0, norm.eps)
    return F.batch_norm(x, None, None, norm.weight * (seen[norm] / inverse), norm.bias, True, 0.0, norm.eps)


def _convolve(conv: Any, seen: dict[nn.Module, Any], x: Tensor, **_: Any) -> Tensor:
    return nn.Conv2d.forward(conv, x)  # of rates, which do not fit in the byte that backward keeps of spikes


class RateMaxResNet(MaxResNet):
    """Max-ResNet that learns so at more than one time step."""

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        if not (self.training and torch.is_grad_enabled() and self.timesteps > 1):
            return super().forward(x, per_step)
        logits = rate_logits(super().forward, self, x)
        return logits if per_step else logits.mean(0)


zoo.register_family(
    RateMaxResNet,
    [
        zoo.Variant(f"rate_max_resnet18_w{width}", "Max-ResNet-18, rate-based.", resnet_shape(19, width, width // 2))
        for width in (16, 32)
    ],
)


def angles(name: str = "max_resnet18_w32.t4_cifar10", images: int = 128) -> dict[str, Any]:
    """Compares the gradients of a trained network's weights on training images of CIFAR-10, from full backpropagation
    and by rates: cosine of the angle and ratio of the norms at 1, 2 and 4 time steps, over all weights, in float64, as
    rounding makes and loses spikes."""
    data = zoo.data.load_dataset("cifar10")
    x, y = zoo.data.normalise(data.train_images[:images], data.mean, data.std).double(), data.train_labels[:images]
    found: dict[str, Any] = {"model": name, "images": images}
    for steps in (1, 2, 4):
        network = zoo.create_model(name, pretrained=True, timesteps=steps, scaling="none").double().train()
        gradients = []
        for logits in (network(x, per_step=True), rate_logits(network.forward, network, x)):
            loss = F.cross_entropy(logits.flatten(0, 1), y.repeat(steps))
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
        full, by_rate = gradients
        cosine = F.cosine_similarity(full, by_rate, 0).item()
        found[f"T{steps}"] = {"cosine": cosine, "norm_ratio": (by_rate.norm() / full.norm()).item()}
    return found


if __name__ == "__main__":
    write_json(Path(__file__).with_suffix(".json"), angles() | provenance(gpu=False))
