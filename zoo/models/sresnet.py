"""Spiking ResNets for 32 x 32 images, with the spike after the addition (post-activation).

`sresnet19` is the ResNet-19 of GLIF (Yao et al. 2022, arXiv 2210.13768) and MPBN (Guo et al. 2023, arXiv 2308.08359):
the 3-3-2 basic blocks of 128-256-512 of tdBN (Zheng et al. 2021, arXiv 2011.05280) behind a stem of 128 channels, then
global average pooling and one FC; 12,569,226 parameters for 10 classes. `stem=64, hidden=256` is the form of tdBN and
TET (Deng et al. 2022, arXiv 2202.11946): stem of 64 channels, FC 256 - LIF - FC, 12,630,858 parameters. `sresnet18`
(2-2-2-2 blocks of 64-128-256-512) is the ResNet-18 of LM-HT (Hao et al. 2024); that of SLTT (Meng et al. 2023, arXiv
2302.14311) and CLIF (Huang et al. 2024, arXiv 2402.04663) is pre-activation. `sresnet34` is `sresnet18` with 3-4-6-3
blocks; `sresnet20` and `sresnet32` have 3-3-3 and 5-5-5 blocks of 64-128-256, as the public code of the first author of
Park et al. 2023 (arXiv 2308.00558) has.
`_wN` names the channels N of the first stage, all else in proportion; `_gs` switches gradient scaling on in training.
"""

from typing import Any

from torch import Tensor, nn

from ..layers import LayerFactory, tie_compact
from ..registry import Variant, register_family
from ..scaling.layers import PostSpikes
from ..specs import check_integer
from ._resnet import ResNet, resnet_shape


class BasicBlock(nn.Module):
    """conv - norm - LIF - conv - norm, plus the shortcut, then LIF: spikes in, spikes out."""

    def __init__(self, in_channels: int, channels: int, stride: int, make: LayerFactory) -> None:
        super().__init__()
        self.conv1 = make.conv(in_channels, channels, 3, stride)
        self.bn1 = make.norm(channels)
        self.lif1 = make.neuron()
        self.conv2 = make.conv(channels, channels)
        self.bn2 = make.norm(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.extend([make.conv(in_channels, channels, 1, stride), make.norm(channels)])
        self.lif2 = make.neuron()

    def forward(self, x: Tensor) -> Tensor:
        post1, post2, post3 = PostSpikes(), PostSpikes(), PostSpikes()
        y, saved = tie_compact(post1, self.lif1(self.conv1(x, post=post1), norm=self.bn1))
        y = self.conv2(y, post=post2, saved=saved)
        if len(self.shortcut):
            conv, norm = self.shortcut
            y = self.lif2(y, norm=self.bn2, shortcut=conv(x, post=post3), shortcut_norm=norm)
        else:
            y = self.lif2(y, norm=self.bn2, shortcut=x)
        return post3.tie(post2.tie(y))


class SResNet(ResNet):
    """Post-activation spiking ResNet.

    Not binary are the inputs of the stem and of what follows the pooling.

    Args:
        depths, widths, stem, kwargs: as for `ResNet`.
        hidden: width of a hidden spiking layer in the head, 0 for none (GLIF, arXiv 2210.13768, and MPBN, arXiv
            2308.08359, leave it out for CIFAR-100: fewer binary values than classes would carry the decision).
    """

    def __init__(
        self, depths: tuple[int, ...], widths: tuple[int, ...], stem: int, hidden: int = 0, **kwargs: Any
    ) -> None:
        own_args = {"stem": check_integer("stem", stem, 1), "hidden": check_integer("hidden", hidden, 0)}
        super().__init__(BasicBlock, depths, widths, stem, own_args, **kwargs)
        self.fc_hidden = nn.Linear(self.num_features, hidden) if hidden else None
        self.lif_hidden = self.make.neuron() if hidden else None
        self.finish(hidden)

    def init_weights(self) -> None:
        """As in `SpikingNetwork`, with blocks near the identity and hidden neurons near their threshold."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, BasicBlock) and not len(module.shortcut):
                # Start near the identity, so that the depth does not wash the image out: a spike on the shortcut lies
                # above a threshold of 1 by the bias, its absence well below, and the branch adds little to either.
                norm: Any = module.bn2
                nn.init.constant_(norm.weight, 0.3 * self.make.threshold)
                nn.init.constant_(norm.bias, 0.3 * self.make.threshold)
        if self.fc_hidden is not None:
            # Its inputs are pooled firing rates, which differ between images by only some 0.04 at the start, around a
            # common mean. Zero-mean rows cancel the mean, their norm of 8 spreads the rest over the surrogate's width,
            # and the bias rests the hidden neurons at half their threshold; PyTorch's default leaves them silent.
            weight = nn.init.normal_(self.fc_hidden.weight, std=8 / self.num_features**0.5)
            weight.data -= weight.data.mean(1, keepdim=True)
            nn.init.constant_(self.fc_hidden.bias, 0.5 * self.make.threshold)

    def forward_pre_logits(self, x: Tensor) -> Tensor:
        x = super().forward_pre_logits(x)
        return x if self.lif_hidden is None else self.lif_hidden(self.fc_hidden(x))  # type: ignore[misc]


def _variant(name: str, layers: int, width: int, parameters: str) -> Variant:
    text = f"ResNet-{layers}, first stage {width} channels, {parameters} M parameters."
    shape = resnet_shape(layers, width)
    return Variant(name, text, shape, {"stem": shape.pop("stem")})


register_family(
    SResNet,
    [
        _variant("sresnet18", 18, 64, "11.17"),
        _variant("sresnet18_w16", 18, 16, "0.70"),
        _variant("sresnet19", 19, 128, "12.57"),
        _variant("sresnet19_w32", 19, 32, "0.79"),
        _variant("sresnet19_w16", 19, 16, "0.20"),
        _variant("sresnet20", 20, 64, "4.33"),
        _variant("sresnet20_w16", 20, 16, "0.27"),
        _variant("sresnet32", 32, 64, "7.43"),
        _variant("sresnet32_w16", 32, 16, "0.47"),
        _variant("sresnet34", 34, 64, "21.28"),
        _variant("sresnet34_w16", 34, 16, "1.33"),
    ],
)
