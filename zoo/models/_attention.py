"""What the spiking transformers share: attention, MLP, blocks on maps [T*B, C, H, W], initial weights.

Two families of residual streams, and so two of MLPs and blocks:

    counts      blocks add spikes to spikes (SEW ADD), the stream counts them: Spikformer, QKFormer
    membranes   blocks add currents, neurons stand at the start of each branch: spike-driven transformer, Max-Former

Linear maps over tokens are 1 x 1 convolutions and tokens stay where they are in the image, so that every network here
is fully convolutional and takes any image size. The papers' code gives most of these maps a bias, which the
normalisation behind takes out again; there is none here. Products of spikes in attention are whole numbers, no
convolution receives them: a layer of neurons comes first.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..layers import ConvNeuron, LayerFactory, MatMul
from ..network import SpikingNetwork
from ..registry import Variant
from ..scaling.layers import PostSpikes
from ..specs import Spec, check_integer

PAPER_NEURON: dict[str, Any] = {"name": "lif", "tau": 2.0, "decay_input": True}
"""The neurons of all four papers. Those of attention have half the threshold."""
MLP_RATIO = 4
"""Hidden channels of an MLP over channels of the stream, in all four papers."""
ATTENTION_SCALE = 0.125
"""The factor of the product q kT v, whatever the channels of a head, in all papers that have that product."""


def variant(name: str, network: str, parameters: str, **shape: Any) -> Variant:
    """Returns a line of the table of a family, which says depth and width in words as well."""
    blocks = f"{shape['depth']} blocks of" if "depth" in shape else "{}-{}-{} blocks of up to".format(*shape["depths"])
    return Variant(name, f"{network}, {blocks} {shape['channels']} channels, {parameters} M parameters.", shape)


class QKV(nn.Module):
    """Spiking self-attention up to its projection: neurons fed by q kT v / 8 (Zhou et al. 2023, arXiv 2209.15425).

    A head sees channels / heads of q, k and v. Maps of `counts` (as in `ConvNeuron`) are not scaled by default.
    """

    def __init__(self, channels: int, heads: int, make: LayerFactory, *, counts: bool) -> None:
        super().__init__()
        self.heads = check_heads(heads, channels)
        maps = (ConvNeuron(channels, channels, make, binary=not counts, by_default=not counts) for _ in range(3))
        self.q, self.k, self.v = maps
        self.memory, self.product = MatMul(), MatMul()
        self.lif = make.neuron(threshold=make.threshold / 2)

    def forward(self, x: Tensor, saved: Tensor | None = None) -> Tensor:
        """Takes spikes or counts [T*B, C, H, W] to spikes of the same shape; `saved` as in `ConvNeuron`."""
        # Channels of a head by tokens, so that nothing is transposed; whole numbers, so that any order is exact.
        q, k, v = (m(x, saved).flatten(2).unflatten(1, (self.heads, -1)) for m in (self.q, self.k, self.v))
        product = self.product(self.memory(v, k.transpose(-2, -1)), q)
        return self.lif((product * ATTENTION_SCALE).reshape(x.shape))


def check_heads(heads: int, channels: int) -> int:
    """`heads` themselves, if they divide the channels; else raises ZooError."""
    if channels % check_integer("heads", heads, 1):
        raise ZooError(f"{heads} heads cannot share {channels} channels: give a number that divides them")
    return heads


class SpikingSelfAttention(nn.Module):
    """Spiking self-attention with its projection, on a stream of counts."""

    def __init__(self, channels: int, heads: int, make: LayerFactory) -> None:
        super().__init__()
        self.qkv = QKV(channels, heads, make, counts=True)
        self.proj = ConvNeuron(channels, channels, make, by_default=True, binary=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.qkv(x))


class CountBlock(nn.Module):
    """x + attention(x), and to that its MLP: counts of spikes in, counts out, up to two more.

    Scaled by default: maps from spikes to spikes, which are the attention's projection and the MLP's second.
    """

    def __init__(self, attn: nn.Module, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.attn = attn
        self.fc1 = ConvNeuron(channels, MLP_RATIO * channels, make)
        self.fc2 = ConvNeuron(MLP_RATIO * channels, channels, make, by_default=True, binary=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.fc2(self.fc1(x))


class MembraneBlock(nn.Module):
    """x + mixer(x), and to that its MLP, neurons - conv - norm - neurons - conv - norm: currents in, currents out.

    Scaled by default: the MLP's first map, and in the mixer what `post` is handed to, since the MLP's first neurons are
    the next on the stream. The neurons behind the MLP's second map are in another block, so scaling cannot reach it.

    Args:
        mixer: a module called with the stream and a `PostSpikes` for the layer that drives the next neurons on it,
            and giving what to add; None for none.
    """

    def __init__(self, mixer: nn.Module | None, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.mixer = mixer
        self.lif1 = make.neuron()
        self.fc1 = ConvNeuron(channels, MLP_RATIO * channels, make, by_default=True, binary=True)
        self.fc2 = nn.Conv2d(MLP_RATIO * channels, channels, 1, bias=False)
        self.bn2 = make.norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        post = PostSpikes()
        if self.mixer is not None:
            x = x + self.mixer(x, post)
        return x + self.bn2(self.fc2(self.fc1(post.tie(self.lif1(x)))))


class SpikingTransformer(SpikingNetwork):
    """What the networks of all four papers share: their neurons by default, and their initial weights.

    Nothing in them depends on the size of the images, so there is no img_size: positions are encoded by convolutions.
    """

    def __init__(self, *, neuron: Spec = PAPER_NEURON, **kwargs: Any) -> None:
        super().__init__(neuron=neuron, **kwargs)

    @torch.no_grad()
    def init_weights(self) -> None:
        """As in the papers' code, normal of standard deviation 0.02, and attention that is neither dumb nor deaf.

        A spike of attention takes some eight coincidences of q, k and v over channels and tokens: normalised currents
        of mean 0 give almost none of them to these papers' neurons, and a multitude to more excitable ones. The mean is
        moved to where the neurons of q, k and v spike alike, whatever they are.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, QKV):
                for conv in (module.q, module.k, module.v):
                    bias: Any = conv.bn.bias
                    # The first is what spikes in one time step, the second so many deviations of the current.
                    bias.fill_(conv.lif.threshold / conv.lif.gain - 1.5 * self.make.norm_weight)


class MembraneTransformer(SpikingTransformer):
    """One whose stream holds membrane currents: neurons read them once more between the pooling and the classifier."""

    def finish(self, features: int | None = None) -> None:
        self.final_lif = self.make.neuron()
        super().finish(features)

    def forward_pre_logits(self, x: Tensor) -> Tensor:
        """Takes membrane currents [T*B, C, H, W] to the spikes that the classifier sees, [T*B, C]."""
        return self.dropout(self.final_lif(self.pool(x).flatten(1)))
