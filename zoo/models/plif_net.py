"""The CIFAR-10 network of PLIF (Fang et al. 2021, arXiv 2007.05785), max-pooled.

Six 3 x 3 convolutions of 256 channels with batch normalisation, a 2 x 2 max pool behind every third, a fully connected
layer of 2048, one of 10 neurons per class, and voting: the logit of a class is the share of its 10 neurons that spike,
averaged over time, so it lies in [0, 1]. (So does its target in the paper, which trains with a squared error and
dropout 0.5; a cross-entropy of such logits cannot fall below 1.46 with 10 classes.) 36,720,492 parameters for 10
classes, eight of which are time constants: neurons are parametric LIF with the arctan surrogate by default. The same
network, in the same order of operations, as SpikingJelly's `parametric_lif_net.CIFAR10Net`.

The maximum of spikes is a spike, so pooling is behind the neurons here. `_wN` names the channels N of the convolutions,
the hidden layer in proportion; `_gs` switches gradient scaling on in training.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..layers import ConvNeuron
from ..network import SpikingNetwork
from ..registry import Variant, register_family
from ..scaling.layers import SpikingLinear
from ..specs import Spec
from ._dense import DenseLayers, StepDropout, map_side, resolve_img_size

_VOTES = 10
_POOLS = 2


class PLIFNet(SpikingNetwork):
    """The PLIF network for CIFAR-10.

    Real-valued inputs, all others being spikes: those of the stem `conv1`; with `dropout`, while training, those of the
    fully connected layers.

    By default gradient scaling reaches the five convolutions behind the stem; `layers` widens it to the hidden layer.

    Args:
        width: channels of each convolution.
        hidden: width of the hidden fully connected layer.
        img_size: side of the images, on which the size of the hidden layer depends; by default 32 times `stem_stride`.
        stem_stride, neuron, surrogate, kwargs: as for `SpikingNetwork`; `dropout` is in front of both fully connected
            layers.

    The classifier `fc` has 10 outputs per class, each the current of a neuron that votes for it.
    """

    def __init__(
        self,
        width: int = 256,
        hidden: int = 2048,
        *,
        img_size: int | Sequence[int] | None = None,
        stem_stride: int = 1,
        neuron: Spec = "plif",
        surrogate: Spec = "arctan",
        **kwargs: Any,
    ) -> None:
        img_size = resolve_img_size(img_size, stem_stride)
        super().__init__({"img_size": img_size}, stem_stride=stem_stride, neuron=neuron, surrogate=surrogate, **kwargs)
        make = self.make
        self.img_size = img_size
        self.make_stem(width)
        for i, depth in enumerate((2, 3)):
            layers = [ConvNeuron(width, width, make, 3, binary=True) for _ in range(depth)]
            self.add_stage(nn.Sequential(*layers, nn.MaxPool2d(2)), width, 2 ** (i + 1))
        side, p = map_side(img_size, stem_stride, _POOLS), self.dropout.p
        self.fc_hidden = DenseLayers(width, side, (hidden,), make, norm=False, dropout=p)
        self.dropout = StepDropout(p, self.timesteps)
        self.fc = self.make_classifier(hidden)
        self.fc_lif = make.neuron()
        self.init_weights()
        self.build_neurons()
        self.assign_scaling()

    def init_weights(self) -> None:
        """He initialisation of every convolution, running variances that fit it, and `_spread` linear layers."""
        pairs = [(self.conv1, self.bn1), *((m.conv, m.bn) for m in self.modules() if isinstance(m, ConvNeuron))]
        for i, (conv, norm) in enumerate(pairs):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            # Running statistics start at the variance of currents from images of unit variance, or from inputs of which
            # one in twenty spikes; at PyTorch's 1, nothing spikes in an untrained network in evaluation mode.
            variance = conv.weight.detach().square().sum((1, 2, 3)) * (0.05 if i else 1)
            for bn in (m for m in norm.modules() if isinstance(m, nn.BatchNorm2d)):
                bn.running_var.copy_(variance)  # type: ignore[union-attr]
        for layer in self.modules():
            if isinstance(layer, SpikingLinear):
                _spread(layer)

    def make_classifier(self, features: int) -> nn.Module:
        """Returns a linear layer from features to 10 neurons per class, or nothing where there are no classes."""
        self.head_hidden_size = features
        return _spread(nn.Linear(features, _VOTES * self.num_classes)) if self.num_classes else nn.Identity()

    def forward_pre_logits(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc_hidden(x))

    def forward_classifier(self, x: Tensor) -> Tensor:
        """Takes spikes [T*B, C'] to logits in [0, 1] [T*B, classes], or to themselves where there are no classes."""
        return self.fc_lif(self.fc(x)).unflatten(1, (-1, _VOTES)).mean(-1) if self.num_classes else x


def _spread(linear: nn.Linear) -> nn.Linear:
    # No normalisation scales these currents. Of the n inputs some tenth spikes: with PyTorch's default, a standard
    # deviation of 0.6 / sqrt(n), hardly a sum reaches a threshold of 1.
    nn.init.normal_(linear.weight, std=4 / linear.in_features**0.5)
    nn.init.zeros_(linear.bias)
    return linear


def _variant(name: str, width: int, parameters: str) -> Variant:
    text = f"PLIF network, {width} channels, {parameters} M parameters."
    return Variant(name, text, {"width": width, "hidden": 8 * width})


register_family(
    PLIFNet,
    [_variant("plif_net", 256, "36.72"), _variant("plif_net_w32", 32, "0.60"), _variant("plif_net_w16", 16, "0.16")],
)
