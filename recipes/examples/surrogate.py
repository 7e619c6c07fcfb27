"""A surrogate derivative of one's own: a bump over the distance of the membrane potential from the threshold.

snn-zoo train quickstart --plugin recipes/examples/surrogate.py \
    --surrogate "{name: gaussian, width: 0.4}" --out runs/bump
"""

import math

import torch

import zoo


@zoo.register_surrogate("gaussian", width=0.5)
def gaussian(x, width):
    """A normal distribution with the standard deviation `width`, in units of membrane potential."""
    return torch.exp(-0.5 * (x / width).square()) / (width * math.sqrt(2 * math.pi))
