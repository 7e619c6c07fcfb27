"""A network, a neuron, a surrogate and a rule of one's own in one file, which goes through every command.

snn-zoo train quickstart --plugin recipes/examples/everything.py --model own_net \
    --neuron own_lif --surrogate own_bump --scaling own_rule --out runs/everything
"""

from torch import nn

import zoo
from zoo.layers import ConvNeuron


class OwnNet(zoo.SpikingNetwork):
    """A stem and two stages."""

    def __init__(self, width, **kwargs):
        super().__init__({}, **kwargs)
        self.make_stem(width)
        self.add_stage(nn.Sequential(ConvNeuron(width, 2 * width, self.make, 3), nn.MaxPool2d(4)), 2 * width, 4)
        self.add_stage(nn.Sequential(ConvNeuron(2 * width, 2 * width, self.make, 3), nn.MaxPool2d(2)), 2 * width, 8)
        self.finish()


zoo.register_family(OwnNet, [zoo.Variant("own_net", "A network of one's own.", {"width": 8})])


@zoo.register_neuron("own_lif")
class OwnLIF(zoo.SpikingNeuron):
    """LIF neurons with a refractory trace, which lowers the current after a spike."""

    spec_keys = ("threshold", "decay")

    def __init__(self, timesteps=4, *, decay=0.5, **others):
        super().__init__(timesteps, **others)
        self.decay = decay

    def step(self, x_t, state=None):
        """Currents [B, ...] and the last state to spikes and the new state."""
        v, rest = (0.0 * x_t, 0.0 * x_t) if state is None else state
        u = self.decay * v + x_t - 0.25 * rest
        s = self.surrogate.spike(u - self.threshold)
        return s, (u - self.threshold * s, 0.5 * rest + s)


@zoo.register_surrogate("own_bump", width=1.0)
def own_bump(x, width):
    """1 / (1 + |x| / width)^2, scaled to unit area."""
    return 0.5 / (width * (1 + x.abs() / width).square())


@zoo.register_scaling("own_rule")
def own_rule(spikes, alpha):
    """A factor for each time step: less where the neuron behind fires often."""
    return 1 - alpha * spikes.post.mean((1, 3, 4))[:, :, None, None, None]
