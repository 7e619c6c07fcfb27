"""Max-Former (Fang et al. 2025, NeurIPS, arXiv 2505.18608): high frequencies kept by max-pooling and depth-wise
convolutions in front of spiking self-attention, for 32 x 32 images.

`maxformer` is the paper's CIFAR network: 1, 1 and 2 blocks of 96, 192 and 384 channels, at 1/1, 1/2 and 1/4 of the
resolution; 6,562,042 parameters for 10 classes. The published 6.57 M count another 6,240 biases in front of batch
normalisations, which change nothing. `_3_64` names depth, of all stages together, and width of the last; `_gs` switches
gradient scaling on in training.
"""

from typing import Any

from torch import Tensor, nn

from ..layers import LayerFactory
from ..registry import register_family
from ..scaling.layers import PostSpikes, compact
from ._attention import QKV, MembraneBlock, MembraneTransformer, variant


class DepthwiseMixer(nn.Module):
    """Neurons - depth-wise 3 x 3 convolution - norm. Scaled by default."""

    def __init__(self, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.lif = make.neuron()
        self.conv = make.conv(channels, channels, groups=channels)
        self.bn = make.norm(channels)

    def forward(self, x: Tensor, post: PostSpikes) -> Tensor:
        """Takes currents [T*B, C, H, W] to what is added to them; `post` is that of the convolution."""
        x = self.lif(x)
        return self.bn(self.conv(x, post=post, saved=compact(x)))


class AttentionMixer(nn.Module):
    """Neurons - spiking self-attention - projection - norm. Scaled by default: q, k, v and the projection."""

    def __init__(self, channels: int, heads: int, make: LayerFactory) -> None:
        super().__init__()
        self.lif = make.neuron()
        self.qkv = QKV(channels, heads, make, counts=False)
        self.proj = make.conv(channels, channels, 1, by_default=True)
        self.bn = make.norm(channels)

    def forward(self, x: Tensor, post: PostSpikes) -> Tensor:
        """Takes currents [T*B, C, H, W] to what is added to them; `post` is that of the projection."""
        x = self.lif(x)
        x = self.qkv(x, compact(x))
        return self.bn(self.proj(x, post=post, saved=compact(x)))


class Embedding(nn.Module):
    """Between stages, to half the resolution: currents in, currents out, max-pooled in the branch and the shortcut.

    Scaling cannot reach its convolutions: they have a pooling, or the end of the module, before their neurons.
    """

    def __init__(self, in_channels: int, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.lif1 = make.neuron()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = make.norm(channels)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.lif2 = make.neuron()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = make.norm(channels)
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), make.norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif1(x)
        y = self.lif2(self.pool(self.bn1(self.conv1(x))))
        return self.bn2(self.conv2(y)) + self.pool(self.shortcut(x))


class MaxFormer(MembraneTransformer):
    """Max-Former: blocks without a mixer in the first stage, depth-wise ones in those between, attention in the last.

    The stream holds membrane currents, and every convolution but that of the image receives spikes. The paper's code
    has two layers of neurons of the same current behind the first convolution; they spike alike, and are one here.

    Args:
        depths: blocks of each stage.
        channels: of the last stage, a multiple of 8; stage by stage half of it going up.
        heads: of attention; they divide the channels of the last stage.
    """

    def __init__(self, depths: tuple[int, ...], channels: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        make, last = self.make, len(depths) - 1
        widths = [channels >> (last - i) for i in range(len(depths))]
        self.make_stem(widths[0] // 2)
        convs = (nn.Conv2d(widths[0] // 2, widths[0], k, padding=k // 2, bias=False) for k in (3, 1))
        self.stem, self.stem_shortcut = (nn.Sequential(conv, make.norm(widths[0])) for conv in convs)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = nn.Sequential(*([Embedding(widths[i - 1], width, make)] if i else []))
            for _ in range(depth):
                mixer: nn.Module | None = DepthwiseMixer(width, make) if i else None
                if i == last:
                    mixer = AttentionMixer(width, heads, make)
                stage.append(MembraneBlock(mixer, width, make))
            self.add_stage(stage, width, 2**i)
        self.finish()

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        """Takes encoded input to membrane currents [T*B, C, H, W]."""
        x = super().forward_stem(x, repeat)
        return self.stem(x) + self.stem_shortcut(x)


register_family(
    MaxFormer,
    [
        variant("maxformer", "Max-Former", "6.56", depths=(1, 1, 2), channels=384, heads=8),
        variant("maxformer_3_128", "Max-Former", "0.54", depths=(1, 1, 1), channels=128, heads=4),
        variant("maxformer_3_64", "Max-Former", "0.14", depths=(1, 1, 1), channels=64, heads=2),
    ],
)
