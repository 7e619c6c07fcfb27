"""SEW-ResNets for 32 x 32 images: spike-element-wise residual blocks (Fang et al. 2021, arXiv 2102.04159).

Both branches of a block end in neurons, and an element-wise function joins their spikes, s of the shortcut and a of the
convolutions: ADD s + a, AND s a, IAND s (1 - a). ADD gives integers, the other two spikes. The stem has stride 1 and no
max-pooling, unlike the paper's for ImageNet. `sew_resnet19` has 3-3-2 blocks of 128-256-512 and one FC behind the stem
of 128 channels of MPD-AGL (IJCAI 2025) and IS-SNN (ECCV 2026).
`_wN` names the channels N of the first stage, all else in proportion; `_gs` switches gradient scaling on in training.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from ..errors import one_of
from ..layers import Hadamard, LayerFactory, fire, tie_compact
from ..registry import register_family
from ..scaling.layers import PostSpikes
from ._resnet import ResNet, resnet_variant

CONNECTS = ["ADD", "AND", "IAND"]
"""What `connect` takes."""


class SEWBlock(nn.Module):
    """conv - norm - LIF twice, joined with the shortcut's spikes: spikes, or for ADD integers, in and out."""

    def __init__(self, in_channels: int, channels: int, stride: int, make: LayerFactory, connect: str) -> None:
        super().__init__()
        self.conv1 = make.conv(in_channels, channels, 3, stride)
        self.bn1 = make.norm(channels)
        self.lif1 = make.neuron()
        self.conv2 = make.conv(channels, channels)
        self.bn2 = make.norm(channels)
        self.lif2 = make.neuron()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            conv = make.conv(in_channels, channels, 1, stride)
            self.shortcut.extend([conv, make.norm(channels), make.neuron()])
        self.connect = connect
        if connect != "ADD":
            self.product = Hadamard()

    def forward(self, x: Tensor) -> Tensor:
        post = PostSpikes()
        y, saved = tie_compact(post, self.lif1(self.conv1(x, post=post), norm=self.bn1))
        y = fire(y, self.conv2, self.bn2, self.lif2, saved)
        if len(self.shortcut):
            x = fire(x, *self.shortcut)
        if self.connect == "ADD":
            return x + y
        return self.product(x, y if self.connect == "AND" else 1 - y)


class SEWResNet(ResNet):
    """Spike-element-wise ResNet.

    Not binary are the inputs of the stem, of the classifier (pooled) and, for ADD, of the first convolution and the
    shortcut of every block but the very first: sums of the spikes of one stage's blocks so far, integers. Gradient
    scaling then takes these counts for its pre-synaptic spikes.

    Args:
        depths, widths, stem, kwargs: as for `ResNet`.
        connect: how a block joins its branches, "ADD", "AND" or "IAND".
    """

    def __init__(
        self, depths: tuple[int, ...], widths: tuple[int, ...], stem: int, *, connect: str = "ADD", **kwargs: Any
    ) -> None:
        if connect not in CONNECTS:
            raise one_of("connect", connect, CONNECTS)
        super().__init__(partial(SEWBlock, connect=connect), depths, widths, stem, {"connect": connect}, **kwargs)
        self.finish()

    def init_weights(self) -> None:
        """As in `SpikingNetwork`, and blocks that pass spikes on."""
        super().init_weights()
        for module in self.modules():
            if self.model_args["connect"] == "AND" and isinstance(module, SEWBlock):
                # A spike of the shortcut passes only where the convolutions' neurons spike too: most do at the start,
                # or the product over the blocks of a stage would leave none.
                norm: Any = module.bn2
                nn.init.constant_(norm.bias, 1.5 * self.make.threshold)


register_family(
    SEWResNet,
    [
        resnet_variant("sew_resnet18", "SEW-ResNet", 18, 64, "11.17"),
        resnet_variant("sew_resnet18_w16", "SEW-ResNet", 18, 16, "0.70"),
        resnet_variant("sew_resnet19", "SEW-ResNet", 19, 128, "12.57"),
        resnet_variant("sew_resnet19_w32", "SEW-ResNet", 19, 32, "0.79"),
        resnet_variant("sew_resnet19_w16", "SEW-ResNet", 19, 16, "0.20"),
        resnet_variant("sew_resnet34", "SEW-ResNet", 34, 64, "21.28"),
        resnet_variant("sew_resnet34_w16", "SEW-ResNet", 34, 16, "1.33"),
    ],
)
