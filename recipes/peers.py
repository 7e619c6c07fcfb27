"""The zoo's ResNets in SpikingJelly, for timing side by side: same weights, same arithmetic, checked before any timing.

The networks take the layout and step mode that SpikingJelly recommends: multi-step, [T, B, ...], contiguous.
"""

# mypy: disable-error-code="operator"
# Layers are set by name; their types are SpikingJelly's.

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.models.sresnet import BasicBlock, SResNet
from zoo.neurons import LIF

TOLERANCE = 1e-9


class SpikingJellyResNet(nn.Module):
    """An `SResNet` rebuilt from SpikingJelly's layers, under the same names, so that it takes the same state_dict.

    Raises:
        ZooError: SpikingJelly is not installed, or a neuron or surrogate that it does not have in the same form.
    """

    def __init__(self, model: SResNet) -> None:
        super().__init__()
        try:
            from spikingjelly.activation_based import functional, layer, neuron, surrogate
        except ImportError:
            raise ZooError("SpikingJelly is not installed: pip install -e '.[peers]' in the checkout") from None
        self.clear, self.timesteps = functional.reset_net, model.timesteps

        def convert(module: nn.Module) -> nn.Module:
            if isinstance(module, LIF):
                return _lif(module, neuron, surrogate)
            if isinstance(module, nn.Conv2d):
                stride, padding = module.stride[0], module.padding[0]
                size, channels = module.kernel_size[0], (module.in_channels, module.out_channels)
                return layer.Conv2d(*channels, size, stride, padding, bias=False)
            if isinstance(module, nn.BatchNorm2d):
                return layer.BatchNorm2d(module.num_features)
            if isinstance(module, nn.Linear):
                return layer.Linear(module.in_features, module.out_features)
            if isinstance(module, BasicBlock):
                return _Block(convert, module)
            if isinstance(module, nn.ModuleList | nn.Sequential):
                return nn.Sequential(*map(convert, module))
            return layer.AdaptiveAvgPool2d(1)

        self.flatten = layer.Flatten()
        for name, child in model.named_children():
            if not isinstance(child, nn.Dropout):
                self.add_module(name, convert(child))
        functional.set_step_mode(self, "m")
        self.load_state_dict(model.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Takes images [B, C, H, W] to logits [B, classes]; the neurons keep their state until `clear(network)`."""
        x = x.unsqueeze(0).expand(self.timesteps, *x.shape)
        x = self.flatten(self.pool(self.stages(self.lif1(self.bn1(self.conv1(x))))))
        if hasattr(self, "fc_hidden"):
            x = self.lif_hidden(self.fc_hidden(x))
        return self.fc(x).mean(0)


class _Block(nn.Module):
    def __init__(self, convert: Any, block: BasicBlock) -> None:
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, convert(child))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.lif1(self.bn1(self.conv1(x)))))
        return self.lif2(y + self.shortcut(x))


def _lif(lif: LIF, neuron: Any, surrogate: Any) -> nn.Module:
    name, width = lif.surrogate
    make = {
        ("triangle", 1.0): lambda: surrogate.PiecewiseQuadratic(alpha=1.0),
        ("rectangle", width): lambda: surrogate.Rect(alpha=1 / width),
        ("arctan", width): lambda: surrogate.ATan(alpha=2 / width),
        ("sigmoid", width): lambda: surrogate.Sigmoid(alpha=1 / width),
    }.get((name, width))
    if make is None or type(lif) is not LIF or lif.decay == 1:
        raise ZooError(f"SpikingJelly has no neuron in the form of {lif}")
    return neuron.LIFNode(
        tau=1 / (1 - lif.decay), decay_input=lif.decay_input, v_threshold=lif.threshold,
        v_reset=None if lif.soft_reset else 0.0, surrogate_function=make(), detach_reset=lif.detach_reset,
    )  # fmt: skip


def check_equal(model: SResNet, peer: SpikingJellyResNet, size: tuple[int, ...]) -> float:
    """Compares logits and gradients of both in float64, in evaluation mode, on two random images.

    Returns:
        The largest difference, relative to the largest value, of the logits and of any parameter's gradient.

    Raises:
        ZooError: it is more than 1e-9.
    """
    images = torch.randn(2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outcomes = []
    for network in (model, peer):
        network = copy.deepcopy(network).double().cpu().eval()
        # Untrained norms pass unit variance through: scaled up, so that spikes reach every layer.
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0.2)  # type: ignore[union-attr]
        logits = network(images)
        F.cross_entropy(logits, torch.tensor([0, 1])).backward()
        outcomes.append([logits.detach(), *(p.grad for p in network.parameters())])
    worst = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(*outcomes, strict=True))
    if not worst <= TOLERANCE:
        raise ZooError(f"the networks differ by {worst:.1e} in float64, more than {TOLERANCE:g}: nothing to compare")
    return worst
