"""Pre-activation spiking ResNets for 32 x 32 images: MS-ResNets (Hu et al. 2021, arXiv 2112.08954) and Max-ResNets.

A block is LIF - conv - norm - LIF - conv - norm, added to a stream of real-valued membrane currents, which the next
block's neurons read (membrane shortcut); so the shortcut carries no spikes and its 1 x 1 convolutions see real numbers.
What a convolution adds to the stream makes the next neurons on it spike, those at the start of the next block: a stage
hands them down from block to block, for gradient scaling.

`ms_resnet18` and `ms_resnet34` have the published blocks, and a stem and a first stage of stride 1 in place of those
for ImageNet; `ms_resnet19` has 3-3-2 blocks of 128-256-512, stem 64, as in the CIFAR comparison of Max-Former (arXiv
2505.18608). In that paper's Max-ResNets, where a stage halves the resolution, its first block has a convolution of
stride 1, norm and a 3 x 3 max-pooling of stride 2: pooling passes on the high frequencies that spiking neurons filter
out. `max_resnet18` is the paper's network, 3-3-2 blocks of 128-256-512 behind a stem of 64 channels without neurons;
`max_resnet18_2222` has 2-2-2-2 blocks of 64-128-256-512. `_wN` names the channels N of the first stage, all else in
proportion; `_gs` switches gradient scaling on in training.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..layers import LayerFactory, UntiedConv2d, tie_compact
from ..neurons.base import input_current
from ..registry import Variant, register_family
from ..scaling.layers import PostSpikes
from ._resnet import ResNet, resnet_shape, resnet_variant


class PreactBlock(nn.Module):
    """LIF - conv - norm - LIF - conv - norm, plus the shortcut: currents in, currents out.

    The shortcut's 1 x 1 convolution reads currents, not spikes, so it is no `SpikingConv2d`.

    Args:
        in_channels, channels, stride: of the block.
        make: makes its layers.
        pooled: the stride is that of a 3 x 3 max-pooling behind the first normalisation, not of the convolution. No
            neurons then have the shape of that convolution's output, and gradient scaling does not reach it.
        tied: the neurons behind the second convolution are at hand (see `PreactStage`); otherwise gradient scaling
            does not reach it.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        make: LayerFactory,
        *,
        pooled: bool = False,
        tied: bool = True,
    ) -> None:
        super().__init__()
        self.lif1 = make.neuron()
        self.conv1 = UntiedConv2d(in_channels, channels) if pooled else make.conv(in_channels, channels, 3, stride)
        self.pool = nn.MaxPool2d(3, stride, 1) if pooled else None
        self.bn1 = make.norm(channels)
        self.lif2 = make.neuron()
        self.conv2 = make.conv(channels, channels) if tied else UntiedConv2d(channels, channels)
        self.bn2 = make.norm(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.extend([nn.Conv2d(in_channels, channels, 1, stride, bias=False), make.norm(channels)])

    def forward(self, x: Tensor, before: PostSpikes) -> tuple[Tensor, PostSpikes]:
        """The stream, currents [T*B, C, H, W], to [T*B, C', H', W'], and what the neurons that read it next are to be
        tied to; `before` is of the layer that added to it last, which this block's first neurons are behind."""
        post1, post2 = PostSpikes(), PostSpikes()
        y, saved = tie_compact(before, self.lif1(x))
        y = self.conv1(y, post=post1, saved=saved)
        y = self.lif2(y, norm=self.bn1) if self.pool is None else self.lif2(self.pool(self.bn1(y)))
        y, saved = tie_compact(post1, y)
        y = self.conv2(y, post=post2, saved=saved)
        return self.bn2(y) + self.shortcut(x), post2


class FinalNeurons(nn.Module):
    """The neurons that read the stream at its end, called as a block is: currents in, spikes out."""

    def __init__(self, make: LayerFactory) -> None:
        super().__init__()
        self.lif = make.neuron()

    def forward(self, x: Tensor, before: PostSpikes) -> tuple[Tensor, PostSpikes]:
        return tie_compact(before, self.lif(x))[0], PostSpikes()


class PreactStage(nn.Sequential):
    """Blocks, each of which ties its first neurons to the last convolution of the block before."""

    def forward(self, x: Tensor) -> Tensor:
        """Takes currents [T*B, C, H, W] to currents [T*B, C', H', W'], or to spikes where the stage ends in neurons."""
        behind = PostSpikes()
        for block in self:
            x, behind = block(x, behind)
        return x


class PreactResNet(ResNet):
    """Pre-activation spiking ResNet: a stem without neurons, `PreactStage`s, neurons, pooling, one linear layer.

    Not binary are the inputs of the stem, of the 1 x 1 shortcuts (currents) and of the classifier (pooled rates).
    Gradient scaling reaches the 3 x 3 convolutions but for those whose neurons are out of reach: the last one of every
    stage except the last stage, whose neurons belong to the next stage, and those in front of a max-pooling.

    Stages but the last end in currents, the last one in spikes.

    Args:
        depths, widths, stem, kwargs: as for `ResNet`.
    """

    spiking_stem = False
    pooled = False
    """Whether a max-pooling halves the resolution, as in `PreactBlock`."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], stem: int, **kwargs: Any) -> None:
        super().__init__(PreactBlock, depths, widths, stem, **kwargs)
        self.finish()

    def make_stage(
        self, block: Callable[..., nn.Module], in_channels: int, channels: int, depth: int, stride: int, last: bool
    ) -> nn.Sequential:
        """As in `ResNet`; the last stage ends in neurons."""
        stage = PreactStage()
        for j in range(depth):
            shape: tuple[Any, ...] = (channels, channels, 1) if j else (in_channels, channels, stride)
            pooled = self.pooled and shape[-1] != 1
            stage.append(block(*shape, self.make, pooled=pooled, tied=last or j < depth - 1))
        return stage.append(FinalNeurons(self.make)) if last else stage

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Takes encoded input to currents [T*B, C, H, W]."""
        return input_current(self.conv1(x), self.timesteps, self.bn1, repeat=repeat)


class MSResNet(PreactResNet):
    """Spiking ResNet with a membrane shortcut; inputs, scaled convolutions and arguments as in `PreactResNet`."""

    def init_weights(self) -> None:
        """As in `SpikingNetwork`, and blocks near the identity."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, PreactBlock):
                # Near the identity, so that the currents keep their variance over the depth. The paper's code starts
                # at 0, where the convolution in front would get no gradient.
                norm: Any = module.bn2
                nn.init.constant_(norm.weight, 0.2 * self.make.norm_weight)


class MaxResNet(PreactResNet):
    """The same, halving the resolution by max-pooling."""

    pooled = True


def _max_variant(name: str, layers: int, width: int, parameters: str) -> Variant:
    shape = resnet_shape(layers, width, width // 2 if layers == 19 else None)  # the paper has 64 in front of 128
    blocks = "-".join(map(str, shape["depths"]))
    return Variant(name, f"Max-ResNet-18 of {blocks} blocks, first stage {width} channels, {parameters}.", shape)


register_family(
    MSResNet,
    [
        resnet_variant("ms_resnet18", "MS-ResNet", 18, 64, "11.17"),
        resnet_variant("ms_resnet18_w16", "MS-ResNet", 18, 16, "0.70"),
        resnet_variant("ms_resnet19", "MS-ResNet", 19, 128, "12.50", 64),
        resnet_variant("ms_resnet19_w32", "MS-ResNet", 19, 32, "0.78", 16),
        resnet_variant("ms_resnet19_w16", "MS-ResNet", 19, 16, "0.20", 8),
        resnet_variant("ms_resnet34", "MS-ResNet", 34, 64, "21.28"),
        resnet_variant("ms_resnet34_w16", "MS-ResNet", 34, 16, "1.33"),
    ],
)
register_family(
    MaxResNet,
    [
        _max_variant("max_resnet18", 19, 128, "12.50 M parameters"),
        _max_variant("max_resnet18_w32", 19, 32, "0.78 M parameters"),
        _max_variant("max_resnet18_w16", 19, 16, "0.20 M parameters"),
        _max_variant("max_resnet18_2222", 18, 64, "11.17 M parameters (11.22 M for 100 classes)"),
        _max_variant("max_resnet18_2222_w16", 18, 16, "0.70 M parameters"),
    ],
)
