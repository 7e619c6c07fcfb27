"""Max-ResNets for 32 x 32 images: MS-ResNets whose stages start with a max-pooling (Max-Former, arXiv 2505.18608).

As in `ms_resnet.py`, but where a stage halves the resolution, its first block has a convolution of stride 1, norm and a
3 x 3 max-pooling of stride 2: pooling passes on the high frequencies that spiking neurons filter out. `max_resnet18` is
the paper's network, 3-3-2 blocks of 128-256-512 behind a stem of 64 channels without neurons; `max_resnet18_2222` has
2-2-2-2 blocks of 64-128-256-512. `_wN` names the channels N of the first stage, all else in proportion; `_gs` switches
gradient scaling on in training.
"""

from typing import Any

from ..family import Variant, register_family
from ._preact import PreactBlock, PreactResNet
from ._resnet import resnet_shape


def _block(in_channels: int, channels: int, stride: int, *args: Any, **kwargs: Any) -> PreactBlock:
    return PreactBlock(in_channels, channels, stride, *args, pooled=stride != 1, **kwargs)


class MaxResNet(PreactResNet):
    """Spiking ResNet with a membrane shortcut that halves the resolution by max-pooling.

    Inputs that are not binary, and which convolutions gradient scaling reaches: as in `PreactResNet`.

    Args:
        depths, widths: blocks and channels of each stage; every stage but the first halves the resolution.
        stem: channels of the stem convolution.
        kwargs: as for `SpikingNetwork`.
    """

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], stem: int, **kwargs: Any) -> None:
        super().__init__(_block, depths, widths, stem, **kwargs)
        self.finish()


register_family(
    MaxResNet,
    [
        Variant(
            "max_resnet18",
            "Max-ResNet-18 of 3-3-2 blocks, first stage 128 channels, 12.50 M parameters.",
            resnet_shape(19, 128),
        ),
        Variant(
            "max_resnet18_w16",
            "Max-ResNet-18 of 3-3-2 blocks, first stage 16 channels, 0.20 M parameters.",
            resnet_shape(19, 16),
        ),
        Variant(
            "max_resnet18_2222",
            "Max-ResNet-18 of 2-2-2-2 blocks, first stage 64 channels, 11.17 M parameters (11.22 M for 100 classes).",
            resnet_shape(18, 64),
        ),
        Variant(
            "max_resnet18_2222_w16",
            "Max-ResNet-18 of 2-2-2-2 blocks, first stage 16 channels, 0.70 M parameters.",
            resnet_shape(18, 16),
        ),
    ],
)
