"""What the spiking ResNets share: shapes by name, a convolution as stem, stages of blocks, one linear classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ..layers import stem_conv
from ..network import SpikingNetwork
from ..specs import check_integer

_DEPTHS = {18: (2, 2, 2, 2), 19: (3, 3, 2), 20: (3, 3, 3), 32: (5, 5, 5), 34: (3, 4, 6, 3)}


def resnet_shape(layers: int, width: int) -> dict[str, Any]:
    """The depths, widths and stem of the ResNet of so many layers whose first stage has `width` channels.

    18 and 34 are the ImageNet shapes (He et al. 2016, arXiv 1512.03385), 20 and 32 that paper's CIFAR shapes; 19 is the
    shape of tdBN (Zheng et al. 2021, arXiv 2011.05280), whose stem has half the channels of its first stage.
    """
    depths = _DEPTHS[layers]
    widths = tuple(width * 2**i for i in range(len(depths)))
    return {"depths": depths, "widths": widths, "stem": width // 2 if layers == 19 else width}


class ResNet(SpikingNetwork):
    """Stem, stages, global average pooling and one linear layer; a subclass adds its head, initialises, and wires.

    Args:
        block: makes a block from its input channels, channels, stride and make.
        depths, widths: blocks and channels of each stage; every stage but the first halves the resolution.
        stem: channels of the stem convolution.
        own: further keywords that are part of what the network is, JSON values.
        stem_stride: 1 at 32 pixels; 2, 4 or 8 keep larger images affordable (see `zoo.layers.stem_conv`).
        kwargs: as for `SpikingNetwork`.
    """

    real_inputs: tuple[str, ...] = ("conv1", "fc")
    """Wildcards over the names of the convolutions and linear layers whose input is not binary: here the image and the
    pooled rates."""
    spiking_stem = True
    """Whether neurons follow the stem convolution."""

    def __init__(
        self,
        block: Callable[..., nn.Module],
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        stem: int,
        own: Mapping[str, Any] | None = None,
        *,
        stem_stride: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__({"stem_stride": check_integer("stem_stride", stem_stride, 1), **(own or {})}, **kwargs)
        self.conv1 = stem_conv(self.in_chans, stem, stem_stride)
        self.bn1 = self.make.norm(stem)
        if self.spiking_stem:
            self.lif1 = self.make.neuron()
        self.stages, self.feature_info = nn.ModuleList(), []
        channels, reduction, last = stem, stem_stride, len(depths) - 1
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            self.stages.append(self.make_stage(block, channels, width, depth, 2 if i else 1, i == last))
            channels, reduction = width, reduction * (2 if i else 1)
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": f"stages.{i}"})
        self.num_features = channels

    def make_stage(
        self, block: Callable[..., nn.Module], in_channels: int, channels: int, depth: int, stride: int, last: bool
    ) -> nn.Sequential:
        """`depth` blocks, the first of which changes channels and resolution; `last` if no stage follows."""
        blocks = [block(in_channels, channels, stride, self.make)]
        blocks += [block(channels, channels, 1, self.make) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def init_convolutions(self) -> None:
        """He initialisation of every convolution."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Encoded input to spikes [T*B, C, H, W]."""
        return self.lif1(self.conv1(x), norm=self.bn1, repeat=repeat)
