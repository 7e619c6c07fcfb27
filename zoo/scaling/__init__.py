"""Gradient scaling by the causality of pre- and post-synaptic spikes.

Park et al. 2023, "Gradient Scaling on Deep Spiking Neural Networks with Spike-Dependent Local Information" (arXiv
2308.00558), scale the STBP weight gradient by spike-dependent local information. Its abstract names no equation; the
rules here follow the versions in the history of the first author's published TensorFlow code, and that one of them is
the paper's is an inference. With spikes s, traces x, the layer's weight gradient g[t] of step t, and K(a, b) the
layer's weight-gradient operator for input a and output gradient b, summed over batch and positions:

    x[t] = k x[t-1] + s[t],  x[-1] = 0,  k = exp(-1)          for pre- and post-synaptic neurons alike
    E = K(x_pre[T-1], x_post[T-1])                            coincidence, in the shape of the weight
    G = (1 - alpha) + alpha E / max E                         in [1 - alpha, 1]; 1 where max E = 0
    dL/dW = G sum_t g[t]                                      elementwise

That is `final_trace`, the only version with pre- and post-synaptic spikes that ran there (11 May 2023), and what `_gs`
networks train with, at alpha 0.5. `causal_trace` takes E[t] and G[t] of each step, as the names of later versions say;
`pre_pre` is what those versions computed. `rules.py` has these and their relatives. Forward, biases and normalisation
are always those of the plain layer; so is the error passed down, but for `local_error`.

How a factor travels from the spikes to the weight gradient, in one forward and backward pass:

1. A block hands each convolution its input spikes and a `PostSpikes` (layers.py). The convolution keeps its input and
   leaves there a token: a second output without values, whose gradient its backward pass will get.
2. When the neurons behind it have fired, the block ties their spikes to the token. Now pre- and post-synaptic spikes
   are both known, and the factor G is computed: `Scaling.factor` (spec.py) looks up the rule, and the rule (rules.py)
   computes evidence and factor with the layer's K (layers.py, which also keeps a factor between passes for rules
   that compute one in every n-th pass only).
3. In the backward pass G arrives at the convolution as the gradient of the token, and multiplies the weight gradient
   (`Scaling.gradients`, spec.py). Rules that scale the error instead send the spikes, and the factor is computed there.

Which layers have a scaling is the network's to say (`SpikingNetwork.assign_scaling`, by the keyword's `layers`).
"""

from .layers import KeptFactor, ScaledLayer
from .rules import PRESETS, Rule, mean_over_processes, register_scaling, sum_over_processes, trace
from .spec import NONE, list_scalings, resolve_scaling

__all__ = [
    "NONE",
    "PRESETS",
    "KeptFactor",
    "Rule",
    "ScaledLayer",
    "list_scalings",
    "mean_over_processes",
    "register_scaling",
    "resolve_scaling",
    "sum_over_processes",
    "trace",
]
