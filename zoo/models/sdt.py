"""Spike-driven transformer (Yao et al. 2023, NeurIPS, arXiv 2307.01694): attention by masks, for 32 x 32 images.

Names tell depth and width: `sdt_2_512` has 2 blocks of 512 channels behind a stem that patches the image 4 x 4. With
100 classes it has 10,273,444 parameters, and the published 10.28 M are those and another 6,144 biases in front of batch
normalisations, which change nothing; with 10 classes it has 10,227,274. `_gs` switches gradient scaling on in training.
"""

from typing import Any

from torch import Tensor, nn

from ..layers import ConvNeuron, Hadamard, LayerFactory
from ..registry import register_family
from ..scaling.layers import PostSpikes, compact
from ._attention import MembraneBlock, MembraneTransformer, variant


class SpikeDrivenAttention(nn.Module):
    """q, wherever neurons fed by the sum of k v over the image say so: masks and additions.

    The paper speaks of heads, but nothing here mixes channels, so any number of heads is the same function. Scaled by
    default: q, k, v and the projection.
    """

    def __init__(self, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.lif1 = make.neuron()
        self.q, self.k, self.v = (ConvNeuron(channels, channels, make, by_default=True, binary=True) for _ in range(3))
        self.agree, self.mask = Hadamard(), Hadamard()
        self.lif2 = make.neuron(threshold=make.threshold / 2)
        self.proj = make.conv(channels, channels, 1, by_default=True)
        self.bn = make.norm(channels)

    def forward(self, x: Tensor, post: PostSpikes) -> Tensor:
        """Takes currents [T*B, C, H, W] to what is added to them; `post` is that of the projection."""
        x = self.lif1(x)
        saved = compact(x)
        q, k, v = (m(x, saved) for m in (self.q, self.k, self.v))
        masked = self.mask(q, self.lif2(self.agree(k, v).sum((2, 3), keepdim=True)))
        return self.bn(self.proj(masked, post=post, saved=compact(masked)))


class SpikeDrivenTransformer(MembraneTransformer):
    """Spike-driven transformer: one stage per block, all of one resolution.

    The stream holds membrane currents, and every convolution but that of the image receives spikes. Scaling cannot
    reach the last two of the stem: one has a pooling between itself and its neurons, the neurons of the other are in
    the first block.

    Args:
        depth: blocks.
        channels: of the blocks, a multiple of 8.
    """

    def __init__(self, depth: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        make = self.make
        eighth, quarter, half = channels // 8, channels // 4, channels // 2
        self.make_stem(eighth)
        self.stem = nn.Sequential(
            ConvNeuron(eighth, quarter, make, 3, binary=True),
            ConvNeuron(quarter, half, make, 3, binary=True),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(half, channels, 3, padding=1, bias=False),
            make.norm(channels),
            nn.MaxPool2d(3, 2, 1),
        )
        position = make.neuron(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), make.norm(channels)
        self.position = nn.Sequential(*position)
        for _ in range(depth):
            block = MembraneBlock(SpikeDrivenAttention(channels, make), channels, make)
            self.add_stage(nn.Sequential(block), channels, 4)
        self.finish()

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Takes encoded input to membrane currents [T*B, C, H/4, W/4]."""
        x = self.stem(super().forward_stem(x, repeat))
        return x + self.position(x)


register_family(
    SpikeDrivenTransformer,
    [
        variant("sdt_2_512", "Spike-driven transformer", "10.23", depth=2, channels=512),
        variant("sdt_2_128", "Spike-driven transformer", "0.64", depth=2, channels=128),
        variant("sdt_2_64", "Spike-driven transformer", "0.16", depth=2, channels=64),
    ],
)
