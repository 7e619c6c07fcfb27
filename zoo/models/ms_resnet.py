"""MS-ResNets for 32 x 32 images: spiking ResNets with a membrane shortcut (Hu et al. 2021, arXiv 2112.08954).

A block is LIF - conv - norm - LIF - conv - norm, added to a stream of real-valued membrane currents, which the next
block's neurons read; so the shortcut carries no spikes and its 1 x 1 convolutions see real numbers. `ms_resnet18` and
`ms_resnet34` have the published blocks, and a stem and a first stage of stride 1 in place of those for ImageNet;
`ms_resnet19` has 3-3-2 blocks of 128-256-512, stem 64, as in the CIFAR comparison of Max-Former (arXiv 2505.18608).
`_wN` names the channels N of the first stage, all else in proportion; `_gs` switches gradient scaling on in training.
"""

from typing import Any

from torch import nn

from ..registry import Variant, register_family
from ._preact import PreactBlock, PreactResNet
from ._resnet import resnet_shape


class MSResNet(PreactResNet):
    """Spiking ResNet with a membrane shortcut.

    Inputs that are not binary, which convolutions gradient scaling reaches, and arguments: as in `PreactResNet`.
    """

    def init_weights(self) -> None:
        """As in `SpikingNetwork`, and blocks near the identity."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, PreactBlock):
                # Near the identity, so that the currents keep their variance over the depth. The paper's code starts
                # at 0, where the convolution in front would get no gradient.
                norm: Any = module.bn2
                nn.init.constant_(norm.weight, 0.2 * self.make.norm_weight)


register_family(
    MSResNet,
    [
        Variant("ms_resnet18", "MS-ResNet-18, first stage 64 channels, 11.17 M parameters.", resnet_shape(18, 64)),
        Variant("ms_resnet18_w16", "MS-ResNet-18, first stage 16 channels, 0.70 M parameters.", resnet_shape(18, 16)),
        Variant(
            "ms_resnet19", "MS-ResNet-19, first stage 128 channels, 12.50 M parameters.", resnet_shape(19, 128, 64)
        ),
        Variant(
            "ms_resnet19_w32", "MS-ResNet-19, first stage 32 channels, 0.78 M parameters.", resnet_shape(19, 32, 16)
        ),
        Variant(
            "ms_resnet19_w16", "MS-ResNet-19, first stage 16 channels, 0.20 M parameters.", resnet_shape(19, 16, 8)
        ),
        Variant("ms_resnet34", "MS-ResNet-34, first stage 64 channels, 21.28 M parameters.", resnet_shape(34, 64)),
        Variant("ms_resnet34_w16", "MS-ResNet-34, first stage 16 channels, 1.33 M parameters.", resnet_shape(34, 16)),
    ],
)
