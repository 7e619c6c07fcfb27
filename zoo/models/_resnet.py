"""What the spiking ResNets share: shapes by name, a convolution as stem, stages of blocks, one linear classifier."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..network import SpikingNetwork
from ..registry import Variant

_DEPTHS = {18: (2, 2, 2, 2), 19: (3, 3, 2), 20: (3, 3, 3), 32: (5, 5, 5), 34: (3, 4, 6, 3)}


def resnet_shape(layers: int, width: int, stem: int | None = None) -> dict[str, Any]:
    """Returns the depths, widths and stem of the ResNet of so many layers whose first stage has `width` channels.

    18 and 34 are the ImageNet shapes (He et al. 2016, arXiv 1512.03385), 20 and 32 that paper's CIFAR shapes, 19 has
    the blocks of tdBN (Zheng et al. 2021, arXiv 2011.05280). The stem has the channels of the first stage, or `stem`.
    """
    depths = _DEPTHS[layers]
    widths = tuple(width * 2**i for i in range(len(depths)))
    return {"depths": depths, "widths": widths, "stem": stem or width}


def resnet_variant(
    name: str, family: str, layers: int, width: int, parameters: str, stem: int | None = None
) -> Variant:
    """Returns a line of the table of a family; see `resnet_shape`."""
    text = f"{family}-{layers}, first stage {width} channels, {parameters} M parameters."
    return Variant(name, text, resnet_shape(layers, width, stem))


class ResNet(SpikingNetwork):
    """Stem, stages, global average pooling and one linear layer; a subclass adds its head and calls `finish`.

    Args:
        block: makes a block from its input channels, channels, stride and make.
        depths, widths: blocks and channels of each stage; every stage but the first halves the resolution.
        stem: channels of the stem convolution.
        own_args, kwargs: as for `SpikingNetwork`.
    """

    spiking_stem = True
    """Whether neurons follow the stem convolution."""

    def __init__(
        self,
        block: Callable[..., nn.Module],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        stem: int,
        own_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(own_args, **kwargs)
        self.make_stem(stem, neurons=self.spiking_stem)
        channels, last = stem, len(depths) - 1
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            self.add_stage(self.make_stage(block, channels, width, depth, 2 if i else 1, i == last), width, 2**i)
            channels = width

    def make_stage(
        self, block: Callable[..., nn.Module], in_channels: int, channels: int, depth: int, stride: int, last: bool
    ) -> nn.Sequential:
        """`depth` blocks, the first of which changes channels and resolution; `last` if no stage follows."""
        blocks = [block(in_channels, channels, stride, self.make)]
        blocks += [block(channels, channels, 1, self.make) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)
