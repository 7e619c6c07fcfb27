"""Spike-driven transformer (Yao et al. 2023, NeurIPS, arXiv 2307.01694): attention by masks, for 32 x 32 images.

Names tell depth and width: `sdt_2_512` has 2 blocks of 512 channels behind a stem that patches the image 4 x 4. With
100 classes it has 10,273,444 parameters, and the published 10.28 M are those and another 6,144 biases in front of batch
normalisations, which change nothing; with 10 classes it has 10,227,274. `_gs` switches gradient scaling on in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..family import Variant, register_family
from ..layers import LayerFactory, stem_conv
from ..network import SpikingNetwork
from ..scaling.layers import PostSpikes, compact
from ..specs import check_integer
from ._attention import PAPER_NEURON, ConvNeuron, MembraneBlock, init_weights


class SpikeDrivenAttention(nn.Module):
    """q, wherever neurons fed by the sum of k v over the image say so: masks and additions.

    The paper speaks of heads, but nothing here mixes channels, so any number of heads is the same function. Scaled by
    default: q, k, v and the projection.
    """

    def __init__(self, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.lif1 = make.neuron()
        self.q, self.k, self.v = (ConvNeuron(channels, channels, make, by_default=True) for _ in range(3))
        self.lif2 = make.neuron(threshold=make.threshold / 2)
        self.proj = make.conv(channels, channels, 1, by_default=True)
        self.bn = make.norm(channels)

    def forward(self, x: Tensor, post: PostSpikes) -> Tensor:
        """Currents [T*B, C, H, W] to what is added to them; `post` is that of the projection."""
        x = self.lif1(x)
        saved = compact(x)
        q, k, v = (m(x, saved) for m in (self.q, self.k, self.v))
        masked = q * self.lif2((k * v).sum((2, 3), keepdim=True))
        return self.bn(self.proj(masked, post, compact(masked)))


class SpikeDrivenTransformer(SpikingNetwork):
    """Spike-driven transformer: one stage a block, all of one resolution.

    The stream holds membrane currents, and every convolution but that of the image receives spikes. Scaling cannot
    reach the last two of the stem: one has a pooling between itself and its neurons, the neurons of the other are in
    the first block.

    Args:
        depth: blocks.
        channels: of the blocks, a multiple of 8.
        stem_stride: 1 at 32 pixels; 2, 4 or 8 keep larger images affordable (see `zoo.layers.stem_conv`). There is no
            img_size: positions are encoded by a convolution.
        neuron: LIF with tau 2 unless said, as in the paper.
        kwargs: as for `SpikingNetwork`.

    Raises:
        ZooError: a value that is out of range or not known.
    """

    real_inputs: tuple[str, ...] = ("conv1",)
    """Layers whose input is not binary: the image."""

    def __init__(
        self,
        depth: int,
        channels: int,
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
            nn.Conv2d(half, channels, 3, padding=1, bias=False),
            make.norm(channels),
            nn.MaxPool2d(3, 2, 1),
        )
        self.position = nn.Sequential(
            make.neuron(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), make.norm(channels)
        )
        self.stages, self.feature_info = nn.ModuleList(), []
        for i in range(depth):
            self.stages.append(nn.Sequential(MembraneBlock(SpikeDrivenAttention(channels, make), channels, make)))
            self.feature_info.append({"num_chs": channels, "reduction": 4 * stem_stride, "module": f"stages.{i}"})
        self.final_lif = make.neuron()
        self.num_features = channels
        self.fc = self.make_classifier(channels)
        init_weights(self)
        self.assign_scaling()

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Encoded input to membrane currents [T*B, C, H/4, W/4]."""
        x = self.stem(self.lif1(self.conv1(x), norm=self.bn1, repeat=repeat))
        return x + self.position(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Membrane currents [T*B, C, H, W] to logits [T*B, classes], or to the classifier's inputs if `pre_logits`."""
        x = self.dropout(self.final_lif(self.pool(x).flatten(1)))
        return x if pre_logits else self.fc(x)


register_family(
    SpikeDrivenTransformer,
    [
        Variant(
            "sdt_2_512",
            "Spike-driven transformer, 2 blocks of 512 channels, 10.23 M parameters.",
            {"depth": 2, "channels": 512},
        ),
        Variant(
            "sdt_2_64",
            "Spike-driven transformer, 2 blocks of 64 channels, 0.16 M parameters.",
            {"depth": 2, "channels": 64},
        ),
    ],
)
