"""The scaled gradients of every preset by loops over synapses and time steps, in float64."""

import math

import torch
from torch.nn import functional as F

from zoo.scaling.rules import CONTROLS
from zoo.scaling.rules import PRESETS as RULES
from zoo.scaling.spec import list_scalings

K = math.exp(-1)
PRESETS = [name for name in list_scalings() if name not in CONTROLS]
KINDS = {  # in, out, kernel, stride, padding, dilation, groups
    "3x3": (2, 3, 3, 1, 1, 1, 1),
    "1x1": (3, 2, 1, 1, 0, 1, 1),
    "strided": (2, 2, 3, 2, 1, 1, 1),
    "dilated": (2, 2, 3, 1, 2, 2, 1),
    "grouped": (4, 4, 3, 1, 1, 1, 2),
}


def fitting(kind, name):
    """The kind of convolution itself, or, for a rule that needs it, one whose output has the shape of its input."""
    c_in, _, size, _, _, dilation, groups = kind
    return (c_in, c_in, size, 1, dilation * (size // 2), dilation, groups) if RULES[name].one_shape else kind


def synapse_sums(a, b, kind):
    """K(a, b), one synapse at a time: a [B, in, H, W], b [B, out, H', W']."""
    c_in, c_out, size, stride, padding, dilation, groups = kind
    out = torch.zeros(c_out, c_in // groups, size, size, dtype=a.dtype)
    per_group_in, per_group_out = c_in // groups, c_out // groups
    for o in range(c_out):
        for i in range(per_group_in):
            source = o // per_group_out * per_group_in + i
            for ky in range(size):
                for kx in range(size):
                    for y in range(b.shape[2]):
                        for x in range(b.shape[3]):
                            yy, xx = y * stride + ky * dilation - padding, x * stride + kx * dilation - padding
                            if 0 <= yy < a.shape[2] and 0 <= xx < a.shape[3]:
                                out[o, i, ky, kx] += (a[:, source, yy, xx] * b[:, o, y, x]).sum()
    return out


def traces(spikes):
    out = []
    for t in range(len(spikes)):
        out.append(sum(K ** (t - s) * spikes[s] for s in range(t + 1)))
    return out


def soon(post):
    """y[t] by its definition: k to the power of the steps until the next spike, 0 if none comes."""
    y = torch.zeros_like(post)
    for index in torch.cartesian_prod(*[torch.arange(n) for n in post.shape[1:]]):
        at = tuple(index.tolist())
        for t in range(len(post)):
            later = [s for s in range(t, len(post)) if post[(s, *at)] == 1]
            y[(t, *at)] = K ** (later[0] - t) if later else 0
    return y


def by_hand(name, pre, post, error, alpha, kind):
    """(weight gradient, error that is passed down)."""
    steps = range(len(pre))
    g = [synapse_sums(pre[t], error[t], kind) for t in steps]
    x_pre, x_post = traces(pre), traces(post)
    if name in ("local", "local_error"):
        scaled = error * (1 - alpha + alpha * soon(post))
        gradient = sum(synapse_sums(pre[t], scaled[t], kind) for t in steps)
        return gradient, scaled if name == "local_error" else error
    if name in ("window", "mean_preserving", "channel", "final_trace"):
        used = steps if name != "final_trace" else steps[-1:]
        evidence = sum(synapse_sums(x_pre[t], x_post[t], kind) for t in used)
        factor = torch.ones_like(evidence)
        for o in range(len(evidence)):
            reference = {"mean_preserving": evidence.mean(), "channel": evidence[o].mean()}.get(name, evidence.max())
            if reference > 0:
                factor[o] = 1 - alpha + alpha * evidence[o] / reference
        return factor * sum(g), error
    total = 0
    for t in steps:
        if name == "ltp_ltd":
            before = K * x_post[t - 1] if t else torch.zeros_like(post[0])
            d = synapse_sums(x_pre[t], post[t], kind) - synapse_sums(pre[t], before, kind)
            factor = 1 + alpha * d / d.abs().max() if d.abs().max() > 0 else torch.ones_like(d)
        else:
            a, b = {
                "causal_trace": (x_pre, x_post), "pre_pre": (x_pre, x_pre), "coincidence": (pre, post),
                "causal_only": (x_pre, post),
            }[name]  # fmt: skip
            evidence = synapse_sums(a[t], b[t], kind)
            largest = evidence.max()
            factor = 1 - alpha + alpha * evidence / largest if largest > 0 else torch.ones_like(evidence)
        total = total + factor * g[t]
    return total, error


def example(kind, steps, batch, rate=(0.4, 0.4)):
    c_in, c_out, size, *_, groups = kind
    torch.manual_seed(0)
    pre = (torch.rand(steps, batch, c_in, 4, 5) < rate[0]).double()
    shape = F.conv2d(pre[0], torch.zeros(c_out, c_in // groups, size, size).double(), None, *kind[3:]).shape
    return pre, (torch.rand(steps, *shape) < rate[1]).double(), torch.randn(steps, *shape, dtype=torch.float64)
