"""A neuron of one's own: its dynamics as one time step in PyTorch, from which training, streaming and export are made.

snn-zoo train quickstart --plugin recipes/examples/neuron.py --neuron "{name: adaptive, decay: 0.6}" --out runs/neuron
"""

import zoo


@zoo.register_neuron("adaptive")
class Adaptive(zoo.SpikingNeuron):
    """LIF neurons whose threshold rises by `step_up` with each spike and falls back with the membrane's decay."""

    spec_keys = ("threshold", "decay", "step_up")  # what the keyword `neuron` may say

    def __init__(self, timesteps=4, *, decay=0.5, step_up=0.2, **others):
        super().__init__(timesteps, **others)  # which knows threshold, surrogate and kernel
        self.decay, self.step_up = decay, step_up

    def step(self, x_t, state=None):
        """Currents [B, ...] and the last state (None at first) to spikes of that shape and the new state."""
        v, raised = (0.0 * x_t, 0.0 * x_t) if state is None else state
        u = self.decay * v + x_t
        s = self.surrogate.spike(u - self.threshold - raised)  # 1 or 0, with the surrogate's gradient
        return s, (u * (1 - s.detach()), self.decay * raised + self.step_up * s.detach())
