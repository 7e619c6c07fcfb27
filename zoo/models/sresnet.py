"""Spiking ResNets for 32 x 32 images, with the spike after the addition (post-activation).

`sresnet19` is the ResNet-19 of tdBN (Zheng et al. 2021, arXiv 2011.05280) and TET (Deng et al. 2022, arXiv 2202.11946):
stem of 64 channels, 3-3-2 basic blocks of 128-256-512, global average pooling, FC 256 - LIF - FC; 12,630,858 parameters
for 10 classes. `sresnet20` has 3-3-3 blocks of 64-128-256 and one FC, as in Park et al. 2023 (arXiv 2308.00558).
`_wN` names the channels N of the first stage, all else in proportion; `_gs` switches gradient scaling on in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import ZooError
from ..layers import SpikingConv2d, compact, stem_conv
from ..network import SpikingNetwork
from ..neuron import LIF, create_neuron
from ..post import PostSpikes
from ..registry import register_model
from ..scaling import NONE, resolve_scaling
from ..specs import check_integer, check_number
from ._build import build, make_cfgs

_WIDTHS = ("", "_w32", "_w16")
_NAMES = [f"sresnet19{width}" for width in _WIDTHS] + ["sresnet20"]
default_cfgs = make_cfgs([n + gs for n in _NAMES for gs in ("", "_gs")], first_conv="conv1", classifier="fc")


class BasicBlock(nn.Module):
    """conv - norm - LIF - conv - norm, plus the shortcut, then LIF: spikes in, spikes out.

    Gradient scaling, where given, applies to the 3 x 3 convolutions with equal channels and stride 1.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, neuron: Any, **conv: Any) -> None:
        super().__init__()
        changes = stride != 1 or in_channels != channels
        entry = conv | {"scaling": None} if changes else conv
        self.conv1 = SpikingConv2d(in_channels, channels, 3, stride, 1, **entry)
        self.bn1 = nn.BatchNorm2d(channels)
        self.lif1: LIF = neuron()
        self.conv2 = SpikingConv2d(channels, channels, 3, 1, 1, **conv)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if changes:
            self.shortcut.append(SpikingConv2d(in_channels, channels, 1, stride, **entry))
            self.shortcut.append(nn.BatchNorm2d(channels))
        self.lif2: LIF = neuron()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes [T*B, C, H, W] to spikes [T*B, C', H', W']."""
        post1, post2 = PostSpikes(), PostSpikes()
        y = self.lif1(self.conv1(x, post1), norm=self.bn1)
        kept = compact(y)
        y = self.conv2(post1.tie(y, kept), post2, kept)
        if len(self.shortcut):
            conv, norm = self.shortcut
            y = self.lif2(y, norm=self.bn2, shortcut=conv(x), shortcut_norm=norm)
        else:
            y = self.lif2(y, norm=self.bn2, shortcut=x)
        return post2.tie(y)


class SResNet(SpikingNetwork):
    """Post-activation spiking ResNet.

    Args:
        depths, widths: blocks and channels of each stage; every stage but the first halves the resolution.
        stem: channels of the stem convolution.
        hidden: width of a hidden spiking layer in the head, 0 for none.
        timesteps: T, with direct encoding: the stem runs once, its current is repeated.
        neuron, surrogate, scaling: a name or an object with its numbers; see `zoo.neuron`, `.surrogate`, `.scaling`.
        dropout: probability of dropping a pooled feature before the head.
        stem_stride: 1 at 32 pixels; 2, 4 or 8 keep larger images affordable (see `layers.stem_conv`).
        kernel: which code runs the neurons; see `zoo.kernels`. No part of what the network is, so not in model_args.

    Raises:
        ZooError: a value that is out of range or not known.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        stem: int,
        hidden: int = 0,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        timesteps: int = 4,
        neuron: str | Mapping[str, Any] = "lif",
        surrogate: str | Mapping[str, Any] = "triangle",
        scaling: str | Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        stem_stride: int = 1,
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        check_number("dropout", dropout, 0, 0.99)
        check_integer("stem_stride", stem_stride, 1)
        check_integer("num_classes", num_classes, 0)
        check_integer("in_chans", in_chans, 1)
        self.model_args = {
            **{"timesteps": timesteps, "neuron": neuron, "surrogate": surrogate, "scaling": scaling or NONE},
            **{"dropout": dropout, "stem_stride": stem_stride, "in_chans": in_chans},
        }
        self.timesteps, self.num_classes, self.in_chans = timesteps, num_classes, in_chans

        def make_neuron() -> LIF:
            return create_neuron(neuron, timesteps, surrogate, kernel)

        conv = {"timesteps": timesteps, "scaling": resolve_scaling(scaling)}
        self.conv1 = stem_conv(in_chans, stem, stem_stride)
        self.bn1 = nn.BatchNorm2d(stem)
        self.lif1 = make_neuron()
        self.stages = nn.ModuleList()
        channels = stem
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = nn.Sequential()
            for j in range(depth):
                stage.append(BasicBlock(channels, width, 2 if i and not j else 1, make_neuron, **conv))
                channels = width
            self.stages.append(stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc_hidden = nn.Linear(channels, hidden) if hidden else None
        self.lif_hidden = make_neuron() if hidden else None
        self.num_features = channels
        self.head_hidden_size = hidden or channels
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, BasicBlock) and not len(module.shortcut):
                # Start near the identity, so that the depth does not wash the image out: a spike on the shortcut lies
                # above the threshold by the bias, its absence well below, and the branch adds little to either.
                nn.init.constant_(module.bn2.weight, 0.3)
                nn.init.constant_(module.bn2.bias, 0.3)
        if self.fc_hidden is not None:
            # Its inputs are pooled firing rates, which differ between images by only some 0.04 at the start, around a
            # common mean. Zero-mean rows cancel the mean, their norm of 8 spreads the rest over the surrogate's width,
            # and the bias rests the hidden neurons at half their threshold; PyTorch's default leaves them silent.
            weight = nn.init.normal_(self.fc_hidden.weight, std=8 / self.num_features**0.5)
            weight.data -= weight.data.mean(1, keepdim=True)
            nn.init.constant_(self.fc_hidden.bias, 0.5 * self.lif1.threshold)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to the last stage's spikes [T*B, C', H', W'].

        Raises:
            ZooError: the input is not a batch of images with the network's number of channels.
        """
        if x.dim() != 4 or x.shape[1] != self.in_chans:
            raise ZooError(f"expected images [B, {self.in_chans}, H, W], got {list(x.shape)}")
        x = self.lif1(self.conv1(x), norm=self.bn1, repeat=True)
        for stage in self.stages:
            x = self.run_stage(stage, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Spikes [T*B, C, H, W] to logits [T*B, classes], or to the classifier's inputs if `pre_logits`."""
        x = self.dropout(self.pool(x).flatten(1))
        if self.fc_hidden is not None:
            x = self.lif_hidden(self.fc_hidden(x))  # type: ignore[misc]
        return x if pre_logits else self.fc(x)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last linear layer by a new one for `num_classes` classes (0: none)."""
        self.num_classes = num_classes
        fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self.fc = fc.to(self.conv1.weight.device)


def _sresnet19(architecture: str, pretrained: bool, width: int = 128, **kwargs: Any) -> SpikingNetwork:
    shape = {"depths": (3, 3, 2), "widths": (width, 2 * width, 4 * width), "stem": width // 2, "hidden": 2 * width}
    return build(SResNet, architecture, pretrained, **shape, **kwargs)


def _sresnet20(architecture: str, pretrained: bool, **kwargs: Any) -> SpikingNetwork:
    shape = {"depths": (3, 3, 3), "widths": (64, 128, 256), "stem": 64}
    return build(SResNet, architecture, pretrained, **shape, **kwargs)


_GS = "causal_trace"


@register_model
def sresnet19(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """ResNet-19, first stage 128 channels, 12.63 M parameters."""
    return _sresnet19("sresnet19", pretrained, **kwargs)


@register_model
def sresnet19_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sresnet19` trained with gradient scaling."""
    return _sresnet19("sresnet19_gs", pretrained, **{"scaling": _GS} | kwargs)


@register_model
def sresnet19_w32(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """ResNet-19, first stage 32 channels, 0.79 M parameters."""
    return _sresnet19("sresnet19_w32", pretrained, 32, **kwargs)


@register_model
def sresnet19_w32_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sresnet19_w32` trained with gradient scaling."""
    return _sresnet19("sresnet19_w32_gs", pretrained, 32, **{"scaling": _GS} | kwargs)


@register_model
def sresnet19_w16(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """ResNet-19, first stage 16 channels, 0.20 M parameters."""
    return _sresnet19("sresnet19_w16", pretrained, 16, **kwargs)


@register_model
def sresnet19_w16_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sresnet19_w16` trained with gradient scaling."""
    return _sresnet19("sresnet19_w16_gs", pretrained, 16, **{"scaling": _GS} | kwargs)


@register_model
def sresnet20(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """ResNet-20, first stage 64 channels, 4.3 M parameters."""
    return _sresnet20("sresnet20", pretrained, **kwargs)


@register_model
def sresnet20_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sresnet20` trained with gradient scaling."""
    return _sresnet20("sresnet20_gs", pretrained, **{"scaling": _GS} | kwargs)
