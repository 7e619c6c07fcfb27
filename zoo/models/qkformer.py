"""QKFormer (Zhou et al. 2024, NeurIPS, arXiv 2403.16552): a hierarchical spiking transformer, for 32 x 32 images.

Names tell depth, of all stages together, and width of the last: `qkformer_4_384` has 1, 1 and 2 blocks of 96, 192 and
384 channels with 8 heads, at 1/1, 1/2 and 1/4 of the resolution. With 100 classes it has 6,734,548 parameters, and the
published 6.74 M are those and another 6,336 biases in front of batch normalisations, which change nothing; with 10
classes it has 6,699,898. `_gs` switches gradient scaling on in training.
"""

from typing import Any

from torch import Tensor, nn

from ..layers import ConvNeuron, Hadamard, LayerFactory
from ..registry import register_family
from ._attention import CountBlock, SpikingSelfAttention, SpikingTransformer, check_heads, variant


class TokenAttention(nn.Module):
    """Q-K token attention, linear in the tokens: the k of a head, which sees channels / heads of q and k, at positions
    where neurons fed by the number of its q spikes say so."""

    def __init__(self, channels: int, heads: int, make: LayerFactory) -> None:
        super().__init__()
        self.heads = check_heads(heads, channels)
        self.q, self.k = (ConvNeuron(channels, channels, make) for _ in range(2))
        self.lif = make.neuron(threshold=make.threshold / 2)
        self.mask = Hadamard()
        self.proj = ConvNeuron(channels, channels, make, by_default=True, binary=True)

    def forward(self, x: Tensor) -> Tensor:
        """Takes counts [T*B, C, H, W] to spikes of the same shape."""
        q, k = (m(x).unflatten(1, (self.heads, -1)) for m in (self.q, self.k))
        mask = self.lif(q.sum(2))
        return self.proj(self.mask(mask[:, :, None], k).flatten(1, 2))


class Embedding(nn.Module):
    """Between stages, to half the resolution: the spikes of a branch and those of a 1 x 1 shortcut, added.

    Counts in, counts of 0 to 2 out. Scaling cannot reach the branch's second convolution: it has a pooling between
    itself and its neurons.
    """

    def __init__(self, in_channels: int, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.conv_neuron = ConvNeuron(in_channels, channels, make, 3)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = make.norm(channels)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.lif = make.neuron()
        self.shortcut = ConvNeuron(in_channels, channels, make, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.pool(self.bn(self.conv(self.conv_neuron(x))))) + self.shortcut(x)


class QKFormer(SpikingTransformer):
    """QKFormer: token attention in all stages but the last, spiking self-attention there.

    Blocks and embeddings add spikes to a stream that counts them (SEW ADD), so what reads it receives counts: an
    embedding's first convolution and shortcut, q, k, v, the first map of an MLP. All others receive spikes.

    Args:
        depths: blocks of each stage.
        channels: of the last stage, a multiple of 8; stage by stage half of it going up.
        heads: of attention; they divide the channels of every stage.
    """

    def __init__(self, depths: tuple[int, ...], channels: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        make, last = self.make, len(depths) - 1
        widths = [channels >> (last - i) for i in range(len(depths))]
        self.make_stem(widths[0] // 2)
        self.stem = ConvNeuron(widths[0] // 2, widths[0], make, 3, binary=True)
        self.stem_shortcut = ConvNeuron(widths[0] // 2, widths[0], make, binary=True)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = nn.Sequential(*([Embedding(widths[i - 1], width, make)] if i else []))
            for _ in range(depth):
                attn = (SpikingSelfAttention if i == last else TokenAttention)(width, heads, make)
                stage.append(CountBlock(attn, width, make))
            self.add_stage(stage, width, 2**i)
        self.finish()

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Takes encoded input to counts of spikes [T*B, C, H, W], 0 to 2."""
        x = super().forward_stem(x, repeat)
        return self.stem(x) + self.stem_shortcut(x)


register_family(
    QKFormer,
    [
        variant("qkformer_4_384", "QKFormer", "6.70", depths=(1, 1, 2), channels=384, heads=8),
        variant("qkformer_3_128", "QKFormer", "0.55", depths=(1, 1, 1), channels=128, heads=4),
        variant("qkformer_3_64", "QKFormer", "0.14", depths=(1, 1, 1), channels=64, heads=2),
    ],
)
