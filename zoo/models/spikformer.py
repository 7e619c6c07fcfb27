"""Spikformer (Zhou et al. 2023, ICLR, arXiv 2209.15425): self-attention of spikes, for 32 x 32 images.

Names tell depth and width: `spikformer_4_384` has 4 blocks of 384 channels and 12 heads behind a stem that patches the
image 4 x 4; 9,310,906 parameters for 10 classes. The published 9.32 M count another 13,824 biases in front of batch
normalisations, which change nothing. `_gs` switches gradient scaling on in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..family import Variant, register_family
from ..layers import stem_conv
from ..network import SpikingNetwork
from ..specs import check_integer
from ._attention import PAPER_NEURON, ConvNeuron, CountBlock, SpikingSelfAttention, init_weights


class Spikformer(SpikingNetwork):
    """Spikformer: one stage a block, all of one resolution.

    Blocks add spikes to a stream that counts them (SEW ADD), so q, k, v and the first map of an MLP receive counts.
    Everything behind them receives spikes: the neurons are before the pooling, as in the paper and its code.

    Args:
        depth: blocks.
        channels: of the blocks, a multiple of 8.
        heads: of attention; they divide the channels.
        stem_stride: 1 at 32 pixels; 2, 4 or 8 keep larger images affordable (see `zoo.layers.stem_conv`). There is no
            img_size: positions are encoded by a convolution.
        neuron: LIF with tau 2 unless said, as in the paper.
        kwargs: as for `SpikingNetwork`.

    Raises:
        ZooError: a value that is out of range or not known.
    """

    real_inputs: tuple[str, ...] = ("conv1", "stages.*.qkv.?.conv", "stages.*.fc1.conv", "fc")
    """Layers whose input is not binary: the image, counts of spikes, their mean over the image."""

    def __init__(
        self,
        depth: int,
        channels: int,
        heads: int,
        *,
        stem_stride: int = 1,
        neuron: str | Mapping[str, Any] = PAPER_NEURON,
        **kwargs: Any,
    ) -> None:
        super().__init__({"stem_stride": check_integer("stem_stride", stem_stride, 1)}, neuron=neuron, **kwargs)
        make = self.make
        eighth, quarter, half = channels // 8, channels // 4, channels // 2
        self.conv1 = stem_conv(self.in_chans, eighth, stem_stride)
        self.bn1 = make.norm(eighth)
        self.lif1 = make.neuron()
        self.stem = nn.Sequential(
            ConvNeuron(eighth, quarter, make, 3),
            ConvNeuron(quarter, half, make, 3),
            nn.MaxPool2d(3, 2, 1),
            ConvNeuron(half, channels, make, 3),
            nn.MaxPool2d(3, 2, 1),
        )
        self.position = ConvNeuron(channels, channels, make, 3)
        self.stages, self.feature_info = nn.ModuleList(), []
        for i in range(depth):
            self.stages.append(nn.Sequential(CountBlock(SpikingSelfAttention(channels, heads, make), channels, make)))
            self.feature_info.append({"num_chs": channels, "reduction": 4 * stem_stride, "module": f"stages.{i}"})
        self.num_features = channels
        self.fc = self.make_classifier(channels)
        init_weights(self)
        self.assign_scaling()

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Encoded input to counts of spikes [T*B, C, H/4, W/4], 0 to 2."""
        x = self.stem(self.lif1(self.conv1(x), norm=self.bn1, repeat=repeat))
        return x + self.position(x)


register_family(
    Spikformer,
    [
        Variant(
            "spikformer_4_384",
            "Spikformer, 4 blocks of 384 channels, 9.31 M parameters.",
            {"depth": 4, "channels": 384, "heads": 12},
        ),
        Variant(
            "spikformer_2_64",
            "Spikformer, 2 blocks of 64 channels, 0.16 M parameters.",
            {"depth": 2, "channels": 64, "heads": 2},
        ),
    ],
)
