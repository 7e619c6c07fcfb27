"""Fully connected spiking layers behind the convolutions, as VGG-like networks have them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..layers import LayerFactory, fire
from ..neurons.base import repeat_steps
from ..specs import check_integer


class StepDropout(nn.Dropout):
    """Dropout that drops the same features at every time step, as in DIET-SNN (Rathi & Roy 2021, arXiv 2008.03658) and
    PLIF (Fang et al. 2021, arXiv 2007.05785): what is dropped is a neuron, not a spike."""

    def __init__(self, p: float, timesteps: int) -> None:
        super().__init__(p)
        self.timesteps = timesteps

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * repeat_steps(super().forward(torch.ones_like(x[: x.shape[0] // self.timesteps])), self.timesteps)


class DenseLayer(nn.Module):
    """Dropout - linear - norm - LIF, or with a bias and no norm: spikes [T*B, C] in, spikes [T*B, C'] out.

    In front of a normalisation the linear layer is a 1 x 1 convolution over one position: normalisations are over maps,
    and an exported graph can fold them into a convolution.
    """

    def __init__(self, in_features: int, out_features: int, make: LayerFactory, *, norm: bool, dropout: float) -> None:
        super().__init__()
        self.dropout = StepDropout(dropout, make.timesteps)
        self.linear = make.conv(in_features, out_features, 1) if norm else make.linear(in_features, out_features)
        self.bn = make.norm(out_features) if norm else None
        self.lif = make.neuron()

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        if self.bn is None:
            return fire(x, self.linear, None, self.lif)
        return fire(x[..., None, None], self.linear, self.bn, self.lif)[..., 0, 0]


class DenseLayers(nn.Sequential):
    """Hidden fully connected layers over every channel and position of a map.

    Args:
        channels, side: of the map, [T*B, channels, side, side].
        widths: features of each layer.
        norm: normalise the current of each layer, instead of a bias.
        dropout: probability of dropping an input of each layer.
    """

    def __init__(
        self, channels: int, side: int, widths: tuple[int, ...], make: LayerFactory, *, norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.expected = channels, side, side
        features = channels * side * side
        for width in widths:
            self.append(DenseLayer(features, width, make, norm=norm, dropout=dropout))
            features = width

    def forward(self, x: Tensor) -> Tensor:
        """Takes spikes [T*B, C, H, W] to spikes [T*B, C']; raises ZooError for a map of another size."""
        if x.shape[1:] != self.expected:
            got, side = list(x.shape[-2:]), self.expected[-1]
            raise ZooError(f"the last map is {got}, not {[side, side]}: build the network with img_size=...")
        return super().forward(x.flatten(1))


def resolve_img_size(img_size: int | Sequence[int] | None, stem_stride: int) -> int:
    """The side of the images that a network is for: by default 32 pixels behind the stem; timm gives both sides."""
    check_integer("stem_stride", stem_stride, 1, 64)
    if isinstance(img_size, list | tuple) and len(img_size) == 2 and img_size[0] == img_size[1]:
        img_size = img_size[0]
    return 32 * stem_stride if img_size is None else check_integer("img_size", img_size, 1, 4096)


def map_side(img_size: int, stem_stride: int, pools: int) -> int:
    """Side of the map that a stem and 2 x 2 pools leave of an image; raises ZooError where nothing is left of it."""
    side = -(-img_size // stem_stride) >> pools
    if side < 1:
        raise ZooError(f"img_size {img_size} with stem_stride {stem_stride} is too small for {pools} pools")
    return side
