"""Spiking VGG networks for 32 x 32 images, average-pooled, with batch normalisation.

    svgg5   64 A 128 128 A                                    FC 4096, 4096   50,612,554 parameters for 10 classes
    svgg9   64 A 128 256 A 256 512 A 512 A 512                FC 4096, 4096   32,086,090
    svgg11  64 A 128 A 256 256 A 512 512 A 512 512            GAP              9,228,362
    svgg13  64 64 A 128 128 A 256 256 A 512 512 A 512 512     GAP              9,413,066
    svgg16  64 64 A 128 128 A 256 x 3 A 512 x 3 A 512 x 3     GAP             14,724,042

where numbers are 3 x 3 convolutions of that many channels, A is average pooling 2 x 2 and GAP global average pooling;
one linear classifier ends each. `svgg5` and `svgg9` are the VGG5 and VGG9 of DIET-SNN's public code (Rathi & Roy 2021,
arXiv 2008.03658), whose names count the layers of neurons; most of their weights are in the fully connected layers.
There is batch normalisation here and none there, a difference of less than 0.1 % of the parameters. The others are the
convolutions of VGG A, B and D (Simonyan & Zisserman 2015, arXiv 1409.1556), with GAP and one layer in place of the last
pool and the fully connected layers, the usual form at 32 pixels: 9.2, 9.4 and 14.7 M parameters as everywhere (others
add a bias to each convolution, 0.03 %). `svgg11` has the eight convolutions of TET's VGGSNN (Deng et al. 2022, arXiv
2202.11946), pooled once more; `svgg16` is the average-pooled VGG16 in the public code
of the first author of Park et al. 2023 (arXiv 2308.00558).

Published networks pool spikes, so that the next convolution's input is a multiple of 1/4. Here the current is pooled,
conv - pool - norm - LIF: every convolution receives spikes, and there are a quarter of the neurons to compute.
`_wN` names the channels N of the first convolution, all else in proportion; `_gs` switches gradient scaling on in
training.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ZooError
from ..layers import ConvNeuron
from ..network import SpikingNetwork
from ..neurons import SpikingNeuron
from ..registry import Variant, register_family
from ..scaling.layers import PostSpikes
from ._dense import DenseLayers, StepDropout, map_side, resolve_img_size

POOL = "A"
_LAYERS: dict[int, tuple[int | str, ...]] = {
    5: (64, "A", 128, 128, "A"),
    9: (64, "A", 128, 256, "A", 256, 512, "A", 512, "A", 512),
    11: (64, "A", 128, "A", 256, 256, "A", 512, 512, "A", 512, 512),
    13: (64, 64, "A", 128, 128, "A", 256, 256, "A", 512, 512, "A", 512, 512),
    16: (64, 64, "A", 128, 128, "A", 256, 256, 256, "A", 512, 512, 512, "A", 512, 512, 512),
}
_HIDDEN = {5: (4096, 4096), 9: (4096, 4096)}
_FIRST = 64


class PooledConvNeuron(ConvNeuron):
    """3 x 3 convolution - 2 x 2 average pool - norm - LIF: spikes in, spikes out."""

    def forward(self, x: Tensor, saved: Tensor | None = None) -> Tensor:
        post = PostSpikes()
        y = self.conv(x, post=post, saved=self.kept(x, saved))
        return tie_pooled(post, pool_and_fire(y, self.bn, self.lif), y.shape)


def pool_and_fire(y: Tensor, norm: nn.Module, lif: SpikingNeuron, repeat: bool = False) -> Tensor:
    """Spikes of the normalised average of the current `y` over 2 x 2 positions; an odd last row or column is cut."""
    if min(y.shape[-2:]) < 2:
        raise ZooError(f"a map of {list(y.shape[-2:])} cannot be pooled: give larger images, or a smaller stem_stride")
    if torch.compiler.is_exporting() and isinstance(norm, nn.BatchNorm2d):
        # The same, since an affine map and an average commute; but a graph can only fold what follows a convolution.
        return lif(F.avg_pool2d(norm(y), 2), repeat=repeat)
    return lif(F.avg_pool2d(y, 2), norm=norm, repeat=repeat)


def tie_pooled(post: PostSpikes, spikes: Tensor, shape: torch.Size) -> Tensor:
    """`spikes` [T*B, C, H, W], tied to a convolution whose current [T*B, C, 2 H, 2 W], of `shape`, was pooled in front
    of them. Each of the four positions that a neuron averages over drives it alike, so each has its spikes for
    post-synaptic ones; a position that no pool covers drives nothing."""
    if post.token is None:
        return spikes
    saved = _over_pools(spikes.detach().to(torch.int8), shape)
    if (potential := getattr(spikes, "potential", None)) is not None:
        spikes.potential = _over_pools(potential, shape, -1e4)  # type: ignore[attr-defined] # far below a threshold
    post.output = spikes.shape
    return post.tie(spikes, saved)


def _over_pools(x: Tensor, shape: torch.Size, uncovered: float = 0) -> Tensor:
    """Returns values [T*B, C, H, W] at each of the four positions that they are of, in `shape`."""
    n, c, h, w = x.shape
    x = x[..., :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)
    return x if x.shape == shape else F.pad(x, (0, shape[-1] - 2 * w, 0, shape[-2] - 2 * h), value=uncovered)


class SVGG(SpikingNetwork):
    """Spiking VGG network.

    Real-valued inputs, all others being spikes: those of the stem `conv1`; those of the classifier `fc` behind global
    average pooling, which are firing rates; with `dropout`, while training, those of the fully connected layers.

    By default gradient scaling reaches the 3 x 3 convolutions with equal channels; `layers` widens it to all but the
    stem and the classifier. The post-synaptic spikes of a pooled convolution are those of the neuron that averages over
    a position.

    Args:
        layers: channels of each convolution, and "A" behind those whose current is pooled. The first one is the stem.
            A stage ends at a pool.
        hidden: widths of hidden fully connected layers over the whole last map; without any, it is averaged.
        img_size: side of the images, on which the size of the first hidden layer depends; by default 32 times
            `stem_stride`. Without hidden layers, images of any size will do.
        kwargs: as for `SpikingNetwork`. With hidden layers, `dropout` is in front of each layer of the head.
    """

    def __init__(
        self,
        layers: tuple[int | str, ...],
        hidden: tuple[int, ...] = (),
        *,
        img_size: int | Sequence[int] | None = None,
        stem_stride: int = 1,
        **kwargs: Any,
    ) -> None:
        layers, img_size = tuple(layers), resolve_img_size(img_size, stem_stride)
        super().__init__({"img_size": img_size}, stem_stride=stem_stride, **kwargs)
        convolutions = [(n, layers[i + 1 : i + 2] == (POOL,)) for i, n in enumerate(layers) if isinstance(n, int)]
        (channels, self.stem_pool), *rest = convolutions
        self.make_stem(channels)
        reduction, stage = 2 if self.stem_pool else 1, nn.Sequential()
        for i, (width, pool) in enumerate(rest):
            if pool:
                reduction *= 2
            stage.append((PooledConvNeuron if pool else ConvNeuron)(channels, width, self.make, 3, binary=True))
            channels = width
            if pool or i == len(rest) - 1:
                self.add_stage(stage, channels, reduction)
                stage = nn.Sequential()
        self.fc_hidden: DenseLayers | None = None
        if hidden:
            self.img_size = img_size
            side = map_side(img_size, stem_stride, layers.count(POOL))
            self.fc_hidden = DenseLayers(channels, side, hidden, self.make, norm=True, dropout=self.dropout.p)
            self.dropout = StepDropout(self.dropout.p, self.timesteps)
        self.finish(hidden[-1] if hidden else None)

    def forward_stem(self, x: Tensor, repeat: bool) -> Tensor:
        if self.stem_pool:
            return pool_and_fire(self.conv1(x), self.bn1, self.lif1, repeat)
        return super().forward_stem(x, repeat)

    def forward_pre_logits(self, x: Tensor) -> Tensor:
        return super().forward_pre_logits(x) if self.fc_hidden is None else self.dropout(self.fc_hidden(x))


def _variant(name: str, layers: int, width: int, parameters: str) -> Variant:
    hidden = _HIDDEN.get(layers, ())
    source = " of DIET-SNN" if hidden else ""
    text = f"VGG-{layers}{source}, first convolution {width} channels, {parameters} M parameters."
    scaled = tuple(n * width // _FIRST if isinstance(n, int) else n for n in _LAYERS[layers])
    return Variant(name, text, {"layers": scaled, "hidden": tuple(n * width // _FIRST for n in hidden)})


register_family(
    SVGG,
    [
        _variant("svgg5", 5, 64, "50.61"),
        _variant("svgg9", 9, 64, "32.09"),
        _variant("svgg9_w32", 9, 32, "8.04"),
        _variant("svgg9_w16", 9, 16, "2.02"),
        _variant("svgg11", 11, 64, "9.23"),
        _variant("svgg11_w32", 11, 32, "2.31"),
        _variant("svgg11_w16", 11, 16, "0.58"),
        _variant("svgg11_w8", 11, 8, "0.15"),
        _variant("svgg13", 13, 64, "9.41"),
        _variant("svgg16", 16, 64, "14.72"),
    ],
)
