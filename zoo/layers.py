"""The layers of a network, made to its keywords: one object that every architecture builds from."""

from typing import Any

from torch import Tensor, nn

from .neurons import SpikingNeuron, create_neuron
from .neurons.norm import create_norm, first_weight
from .scaling.layers import PostSpikes, SpikingConv2d, SpikingLinear, compact
from .specs import Spec, check_timesteps


def stem_conv(in_chans: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """Makes the first convolution, over images: 3 x 3, or wide enough that neighbours overlap at a larger stride."""
    width = max(3, 2 * stride - 1)
    return nn.Conv2d(in_chans, channels, width, stride, width // 2, bias=False)


class UntiedConv2d(nn.Conv2d):
    """A 3 x 3 convolution without bias that gradient scaling never reaches, called as `SpikingConv2d` is."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, post: PostSpikes | None = None, saved: Tensor | None = None) -> Tensor:
        return super().forward(x)


class LayerFactory:
    """Neurons, normalisations, convolutions and linear layers that agree on time steps, surrogate and kernel; arguments
    and errors are those of `SpikingNetwork`."""

    def __init__(self, timesteps: int, neuron: Spec, surrogate: Spec, norm: Spec, kernel: str) -> None:
        self.timesteps = check_timesteps(timesteps)
        self._neuron, self._surrogate, self._norm, self._kernel = neuron, surrogate, norm, kernel
        threshold: Any = self.neuron().threshold
        self.threshold: float = threshold.item() if isinstance(threshold, Tensor) else threshold

    def neuron(self, **changes: Any) -> SpikingNeuron:
        """Makes a layer of neurons, some of its numbers changed."""
        return create_neuron(self._neuron, self.timesteps, self._surrogate, self._kernel, **changes)

    def norm(self, channels: int) -> nn.Module:
        return create_norm(self._norm, channels, self.timesteps, self.threshold)

    @property
    def norm_weight(self) -> float:
        """What the weight of such a normalisation starts at."""
        return first_weight(self._norm, self.threshold)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        by_default: bool | None = None,
        **others: Any,
    ) -> SpikingConv2d:
        """Makes a convolution over spikes that keeps the resolution but for its stride, where `others` has no padding;
        its gradient is scaled `by_default`, where nobody says which layers, if it is 3 x 3 with equal channels and
        stride 1."""
        if by_default is None:
            by_default = kernel_size == 3 and stride == 1 and in_channels == out_channels
        padding = others.get("dilation", 1) * (kernel_size - 1) // 2
        settings = {"padding": padding, "timesteps": self.timesteps, "by_default": by_default} | others
        return SpikingConv2d(in_channels, out_channels, kernel_size, stride, **settings)

    def linear(self, in_features: int, out_features: int) -> SpikingLinear:
        return SpikingLinear(in_features, out_features, timesteps=self.timesteps)


def fire(
    x: Tensor, layer: nn.Module, norm: nn.Module | None, neurons: SpikingNeuron, saved: Tensor | None = None
) -> Tensor:
    """Spikes of `neurons` that a convolution or linear layer drives by its input `x`, spikes or their counts; it learns
    of them for gradient scaling, and keeps `saved`, `compact(x)`, for backward instead of `x` where that is given."""
    post = PostSpikes()
    return post.tie(neurons(layer(x, post=post, saved=saved), norm=norm))


def tie_compact(post: PostSpikes, spikes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns `spikes`, tied to the layer that drives them, and `compact(spikes)` for the layer that they drive."""
    saved = compact(spikes)
    return post.tie(spikes, saved), saved


class MatMul(nn.Module):
    """Matrix product of two activations: a module, so that `zoo.metrics` can count it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


class Hadamard(nn.Module):
    """Elementwise product of two activations, such as a mask: a module, so that `zoo.metrics` can count it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class ConvNeuron(nn.Module):
    """Convolution - norm - neurons: spikes, their counts or averages in, spikes out.

    Args:
        binary: the input is certain to be spikes, 0 or 1: backward then keeps it in one byte each. Of anything else,
            averages say, it would take wrong gradients, so by default it keeps the input as it is.
        by_default: as in `LayerFactory.conv`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        make: LayerFactory,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        binary: bool = False,
        by_default: bool | None = None,
    ) -> None:
        super().__init__()
        self.binary = binary
        self.conv = make.conv(in_channels, channels, kernel_size, stride, by_default=by_default)
        self.bn = make.norm(channels)
        self.lif = make.neuron()

    def forward(self, x: Tensor, saved: Tensor | None = None) -> Tensor:
        """Takes [T*B, C, H, W] to spikes [T*B, C', H', W']; `saved` is `compact(x)` where the caller has it."""
        return fire(x, self.conv, self.bn, self.lif, self.kept(x, saved))

    def kept(self, x: Tensor, saved: Tensor | None) -> Tensor | None:
        """Returns what backward keeps of the input: `saved`, `compact(x)`, or None for the input itself."""
        return compact(x) if saved is None and self.binary else saved
