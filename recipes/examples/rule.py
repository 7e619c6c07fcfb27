"""A rule of gradient scaling of one's own: a factor of each weight gradient, from the spikes around the weight.

snn-zoo train quickstart --plugin recipes/examples/rule.py --scaling my_rule --out runs/rule
"""

import torch

import zoo


@zoo.register_scaling("my_rule", window=True)  # one factor for the whole window, in the shape of the weight
def my_rule(spikes, alpha):
    """exp(-alpha E / max E): synapses whose neurons often spike together learn less."""
    pre, post = spikes.pre.sum(0), spikes.post.sum(0)  # [T, B, C, H, W] to spike counts
    evidence = spikes.operator(pre, post)  # K: what the layer's weight gradient makes of the two
    return torch.exp(-alpha * evidence / evidence.max().clamp(min=1e-9))[None]  # a layer may be silent
