"""SEW-ResNets for 32 x 32 images: spike-element-wise residual blocks (Fang et al. 2021, arXiv 2102.04159).

Both branches of a block end in neurons, and an element-wise function joins their spikes, s of the shortcut and a of the
convolutions: ADD s + a, AND s a, IAND s (1 - a). ADD gives integers, the other two spikes. The stem has stride 1 and no
max-pooling, unlike the paper's for ImageNet. `sew_resnet19` has 3-3-2 blocks of 128-256-512, stem 64 and one FC.
`_wN` names the channels N of the first stage, all else in proportion; `_gs` switches gradient scaling on in training.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import one_of
from ..layers import compact
from ..network import SpikingNetwork
from ..parts import Parts
from ..post import PostSpikes
from ..registry import register_model
from ._build import build, make_cfgs
from ._resnet import ResNet, resnet_shape

_NAMES = [f"sew_resnet{layers}{width}" for layers in (18, 19, 34) for width in ("", "_w16")]
default_cfgs = make_cfgs([n + gs for n in _NAMES for gs in ("", "_gs")], first_conv="conv1", classifier="fc")

CONNECTS = ["ADD", "AND", "IAND"]
"""What `connect` takes."""


class SEWBlock(nn.Module):
    """conv - norm - LIF twice, joined with the shortcut's spikes: spikes, or for ADD integers, in and out."""

    def __init__(self, in_channels: int, channels: int, stride: int, parts: Parts, connect: str) -> None:
        super().__init__()
        self.conv1 = parts.conv(in_channels, channels, 3, stride)
        self.bn1 = parts.norm(channels)
        self.lif1 = parts.neuron()
        self.conv2 = parts.conv(channels, channels)
        self.bn2 = parts.norm(channels)
        self.lif2 = parts.neuron()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            conv = parts.conv(in_channels, channels, 1, stride)
            self.shortcut.extend([conv, parts.norm(channels), parts.neuron()])
        self.connect = connect

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C, H, W] to [T*B, C', H', W']."""
        post1, post2, post3 = PostSpikes(), PostSpikes(), PostSpikes()
        y = self.lif1(self.conv1(x, post1), norm=self.bn1)
        kept = compact(y)
        y = self.lif2(self.conv2(post1.tie(y, kept), post2, kept), norm=self.bn2)
        y = post2.tie(y)
        if len(self.shortcut):
            conv, norm, lif = self.shortcut
            x = post3.tie(lif(conv(x, post3), norm=norm))
        if self.connect == "ADD":
            return x + y
        return x * y if self.connect == "AND" else x * (1 - y)


class SEWResNet(ResNet):
    """Spike-element-wise ResNet.

    Not binary are the inputs of the stem, of the classifier (pooled) and, for ADD, of the first convolution and the
    shortcut of every block but the very first: sums of the spikes of one stage's blocks so far, integers. Gradient
    scaling then takes these counts for its pre-synaptic spikes.

    Args:
        depths, widths: blocks and channels of each stage; every stage but the first halves the resolution.
        stem: channels of the stem convolution.
        connect: how a block joins its branches, "ADD", "AND" or "IAND".
        kwargs: stem_stride, and as for `SpikingNetwork`.

    Raises:
        ZooError: another `connect`.
    """

    real_inputs: tuple[str, ...] = (
        "conv1",
        "fc",
        "stages.0.[!0]*.conv1",
        "stages.[!0]*.conv1",
        "stages.[!0]*.shortcut.0",
    )

    def __init__(
        self, depths: tuple[int, ...], widths: tuple[int, ...], stem: int, *, connect: str = "ADD", **kwargs: Any
    ) -> None:
        if connect not in CONNECTS:
            raise one_of("connect", connect, CONNECTS)
        super().__init__(partial(SEWBlock, connect=connect), depths, widths, stem, {"connect": connect}, **kwargs)
        if connect != "ADD":
            self.real_inputs = ResNet.real_inputs
        self.fc = self.make_classifier(self.num_features)
        self.init_convolutions()
        for module in self.modules():
            if connect == "AND" and isinstance(module, SEWBlock):
                # A spike of the shortcut passes only where the convolutions' neurons spike too: most do at the start,
                # or the product over the blocks of a stage would leave none.
                norm: Any = module.bn2
                nn.init.constant_(norm.bias, 1.5 * self.parts.threshold)
        self.wire()


def _sew_resnet(architecture: str, pretrained: bool, layers: int, width: int, **kwargs: Any) -> SpikingNetwork:
    return build(SEWResNet, architecture, pretrained, **resnet_shape(layers, width), **kwargs)


@register_model
def sew_resnet18(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """SEW-ResNet-18, first stage 64 channels, 11.17 M parameters."""
    return _sew_resnet("sew_resnet18", pretrained, 18, 64, **kwargs)


@register_model
def sew_resnet18_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sew_resnet18` trained with gradient scaling."""
    return _sew_resnet("sew_resnet18_gs", pretrained, 18, 64, **kwargs)


@register_model
def sew_resnet18_w16(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """SEW-ResNet-18, first stage 16 channels, 0.70 M parameters."""
    return _sew_resnet("sew_resnet18_w16", pretrained, 18, 16, **kwargs)


@register_model
def sew_resnet18_w16_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sew_resnet18_w16` trained with gradient scaling."""
    return _sew_resnet("sew_resnet18_w16_gs", pretrained, 18, 16, **kwargs)


@register_model
def sew_resnet19(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """SEW-ResNet-19, first stage 128 channels, 12.50 M parameters."""
    return _sew_resnet("sew_resnet19", pretrained, 19, 128, **kwargs)


@register_model
def sew_resnet19_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sew_resnet19` trained with gradient scaling."""
    return _sew_resnet("sew_resnet19_gs", pretrained, 19, 128, **kwargs)


@register_model
def sew_resnet19_w16(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """SEW-ResNet-19, first stage 16 channels, 0.20 M parameters."""
    return _sew_resnet("sew_resnet19_w16", pretrained, 19, 16, **kwargs)


@register_model
def sew_resnet19_w16_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sew_resnet19_w16` trained with gradient scaling."""
    return _sew_resnet("sew_resnet19_w16_gs", pretrained, 19, 16, **kwargs)


@register_model
def sew_resnet34(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """SEW-ResNet-34, first stage 64 channels, 21.28 M parameters."""
    return _sew_resnet("sew_resnet34", pretrained, 34, 64, **kwargs)


@register_model
def sew_resnet34_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sew_resnet34` trained with gradient scaling."""
    return _sew_resnet("sew_resnet34_gs", pretrained, 34, 64, **kwargs)


@register_model
def sew_resnet34_w16(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """SEW-ResNet-34, first stage 16 channels, 1.33 M parameters."""
    return _sew_resnet("sew_resnet34_w16", pretrained, 34, 16, **kwargs)


@register_model
def sew_resnet34_w16_gs(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """`sew_resnet34_w16` trained with gradient scaling."""
    return _sew_resnet("sew_resnet34_w16_gs", pretrained, 34, 16, **kwargs)
