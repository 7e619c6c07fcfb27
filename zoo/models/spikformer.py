"""Spikformer (Zhou et al. 2023, ICLR, arXiv 2209.15425): self-attention of spikes, for 32 x 32 images.

Names tell depth and width: `spikformer_4_384` has 4 blocks of 384 channels and 12 heads behind a stem that patches the
image 4 x 4; 9,310,906 parameters for 10 classes. The published 9.32 M count another 13,824 biases in front of batch
normalisations, which change nothing. `_gs` switches gradient scaling on in training.
"""

from typing import Any

from torch import Tensor, nn

from ..layers import ConvNeuron
from ..registry import register_family
from ._attention import CountBlock, SpikingSelfAttention, SpikingTransformer, variant


class Spikformer(SpikingTransformer):
    """Spikformer: one stage per block, all of one resolution.

    Blocks add spikes to a stream that counts them (SEW ADD), so q, k, v and the first map of an MLP receive counts.
    Everything behind them receives spikes: the neurons are before the pooling, as in the paper and its code. Gradients
    are scaled in the last map of each part of a block, and in `position`, of which every block reads the spikes.

    Args:
        depth: blocks.
        channels: of the blocks, a multiple of 8.
        heads: of attention; they divide the channels.
    """

    def __init__(self, depth: int, channels: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        make = self.make
        eighth, quarter, half = channels // 8, channels // 4, channels // 2
        self.make_stem(eighth)
        self.stem = nn.Sequential(
            ConvNeuron(eighth, quarter, make, 3, binary=True),
            ConvNeuron(quarter, half, make, 3, binary=True),
            nn.MaxPool2d(3, 2, 1),
            ConvNeuron(half, channels, make, 3, binary=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.position = ConvNeuron(channels, channels, make, 3, binary=True)
        for _ in range(depth):
            block = CountBlock(SpikingSelfAttention(channels, heads, make), channels, make)
            self.add_stage(nn.Sequential(block), channels, 4)
        self.finish()

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Takes encoded input to counts of spikes [T*B, C, H/4, W/4], 0 to 2."""
        x = self.stem(super().forward_stem(x, repeat))
        return x + self.position(x)


register_family(
    Spikformer,
    [
        variant("spikformer_4_384", "Spikformer", "9.31", depth=4, channels=384, heads=12),
        variant("spikformer_2_128", "Spikformer", "0.64", depth=2, channels=128, heads=4),
        variant("spikformer_2_64", "Spikformer", "0.16", depth=2, channels=64, heads=2),
    ],
)
