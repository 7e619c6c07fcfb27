"""A network, a neuron, a surrogate and a rule of one's own in one file, which goes through every command.

snn-zoo train quickstart --plugin recipes/examples/everything.py --model own_net_gs \
    --neuron "{name: adaptive, decay: 0.6}" --surrogate own_bump --scaling own_rule --out runs/everything
"""

import torch
from torch import nn

import zoo
from zoo.layers import ConvNeuron
from zoo.scaling import trace


class OwnNet(zoo.SpikingNetwork):
    """A stem and two stages."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.make_stem(width)
        self.add_stage(nn.Sequential(ConvNeuron(width, 2 * width, self.make, 3), nn.MaxPool2d(4)), 2 * width, 4)
        self.add_stage(nn.Sequential(ConvNeuron(2 * width, 2 * width, self.make, 3), nn.MaxPool2d(2)), 2 * width, 8)
        self.finish()


zoo.register_family(OwnNet, [zoo.Variant("own_net", "A network of one's own.", {"width": 8})])


@zoo.register_neuron("adaptive")
class Adaptive(zoo.SpikingNeuron):
    """LIF neurons that learn a decay and a threshold for each channel; a spike raises the threshold for a while."""

    spec_keys = ("threshold", "decay", "rise")  # what the keyword `neuron` may say

    def __init__(self, timesteps=4, *, decay=0.5, rise=0.2, **others):
        super().__init__(timesteps, **others)  # which knows threshold, surrogate and kernel
        self.decay, self.rise = decay, rise

    def build(self, shape):
        """Called by the network, which knows the channels: [C, 1, 1] or [C], to broadcast over a current."""
        self.decay, self.threshold = (nn.Parameter(torch.full(shape, x)) for x in (self.decay, self.threshold))

    def step(self, x_t, state=None):
        """Currents [B, ...] and the last state (None at first) to spikes of that shape and the new state."""
        v, raised = (0.0 * x_t, 0.0 * x_t) if state is None else state
        decay = self.decay.clamp(0, 1)
        u = decay * v + x_t
        s = self.surrogate.spike(u - (self.threshold + raised))  # 1 or 0, with the surrogate's gradient
        return s, (u * (1 - s.detach()), decay * raised + self.rise * s.detach())


@zoo.register_surrogate("own_bump", width=1.0)
def own_bump(x, width):
    """1 / (1 + |x| / width)^2, scaled to unit area."""
    return 0.5 / (width * (1 + x.abs() / width).square())


@zoo.register_scaling("own_rule", potential=True)
def own_rule(spikes, alpha):
    """1 - alpha + alpha E[t] / max E, E the coincidences of traces before with potentials near the threshold behind, as
    in e-prop's eligibility (Bellec et al. 2020, Nature Communications 11, 3625)."""
    before = trace(spikes.pre, spikes.k)  # [T, B, C, H, W]
    near = (1 - spikes.potential.abs()).clamp(min=0)  # potential - threshold, [T, B, C', H', W']
    evidence = torch.stack([spikes.operator(x, u.to(x.dtype)) for x, u in zip(before, near, strict=True)])
    evidence = zoo.sum_over_processes(evidence)  # as of the whole batch, however many processes share it
    return 1 - alpha + alpha * evidence / evidence.max().clamp(min=1e-9)  # a layer may be silent
