"""Max-ResNets for 32 x 32 images: MS-ResNets whose stages start with a max-pooling (Max-Former, arXiv 2505.18608).

As in `ms_resnet.py`, but where a stage halves the resolution, its first block has a convolution of stride 1, norm and a
3 x 3 max-pooling of stride 2: pooling passes on the high frequencies that spiking neurons filter out. `max_resnet18` is
the paper's network, 3-3-2 blocks of 128-256-512 behind a stem of 64 channels without neurons; `max_resnet18_2222` has
2-2-2-2 blocks of 64-128-256-512. `_wN` names the channels N of the first stage, all else in proportion; `_gs` switches
gradient scaling on in training.
"""

from ..registry import Variant, register_family
from ._preact import PreactResNet
from ._resnet import resnet_shape


class MaxResNet(PreactResNet):
    """Spiking ResNet with a membrane shortcut that halves the resolution by max-pooling.

    Inputs that are not binary, which convolutions gradient scaling reaches, and arguments: as in `PreactResNet`.
    """

    pooled = True


def _variant(name: str, layers: int, width: int, parameters: str) -> Variant:
    shape = resnet_shape(layers, width, width // 2 if layers == 19 else None)  # the paper has 64 in front of 128
    blocks = "-".join(map(str, shape["depths"]))
    return Variant(name, f"Max-ResNet-18 of {blocks} blocks, first stage {width} channels, {parameters}.", shape)


register_family(
    MaxResNet,
    [
        _variant("max_resnet18", 19, 128, "12.50 M parameters"),
        _variant("max_resnet18_w32", 19, 32, "0.78 M parameters"),
        _variant("max_resnet18_w16", 19, 16, "0.20 M parameters"),
        _variant("max_resnet18_2222", 18, 64, "11.17 M parameters (11.22 M for 100 classes)"),
        _variant("max_resnet18_2222_w16", 18, 16, "0.70 M parameters"),
    ],
)
