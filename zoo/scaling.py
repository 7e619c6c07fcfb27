"""Gradient scaling by the causality of pre- and post-synaptic spikes: a family of rules.

Park et al. 2023, "Gradient Scaling on Deep Spiking Neural Networks with Spike-Dependent Local Information" (arXiv
2308.00558), scale the STBP weight gradient by spike-dependent local information. Its abstract names no equation: the
preset `causal_trace` follows the first author's published TensorFlow code, and that it is the paper's rule is an
inference. With spikes s, traces x, the layer's weight gradient g[t] of step t, and K(a, b) the layer's weight-gradient
operator for input a and output gradient b, summed over batch and positions:

    x[t] = k x[t-1] + s[t],  x[-1] = 0,  k = exp(-1)          for pre- and post-synaptic neurons alike
    E[t] = K(x_pre[t], x_post[t])                             coincidence, in the shape of the weight
    G[t] = (1 - alpha) + alpha E[t] / max E[t]                in [1 - alpha, 1]; 1 where max E[t] = 0
    dL/dW = sum_t G[t] g[t]                                   elementwise

The other presets choose otherwise in one of four respects (`Rule`): evidence, time, normalisation, locality. Forward,
biases and normalisation are always those of the plain layer; so is the error passed down, but for `local_error`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from .errors import ZooError, one_of
from .specs import check_number, split_spec

WeightGradient = Callable[[Tensor, Tensor], Tensor]
"""K: (layer input [N, ...], gradient at the layer's output [N, ...]) -> gradient in the shape of the weight."""

TRACE_DECAY = math.exp(-1)
NONE = "none"
"""How model arguments spell None: timm drops keywords that are None, and a `_gs` model would fall back to its rule."""


class Spikes(NamedTuple):
    """What a rule sees of one layer."""

    pre: Tensor
    """The layer's input spikes [T, B, ...]."""
    post: Tensor
    """The spikes [T, B, ...] of the neurons that it drives, in the shape of its output."""
    k: float
    """Decay of a trace from one step to the next."""
    operator: WeightGradient
    """The layer's weight-gradient operator K."""


class Rule(NamedTuple):
    """A way to scale: `factor(spikes, alpha)` multiplies what `locality` names.

    locality is one of
        "weight"     the weight gradient: the factor G is [T, ...] or, for the whole window, [1, ...], then in the shape
                     of the weight
        "error"      the error [T, B, ...] that the weight gradient is computed from: the factor is in its shape
        "error_down" the same, and the error passed down as well
    """

    factor: Callable[[Spikes, float], Tensor]
    locality: str = "weight"


class Scaling(NamedTuple):
    """One rule with its numbers: name, strength alpha, trace decay k; for a control, `of` names its preset."""

    name: str
    alpha: float
    k: float = TRACE_DECAY
    of: str | None = None

    def gradients(
        self, pre: Tensor, post: Tensor, error: Tensor, operator: WeightGradient
    ) -> tuple[Tensor, Tensor | None]:
        """The scaled weight gradient of one layer, and the error to pass down where the rule changes it, else None.

        Args:
            pre: the layer's input spikes [T, B, ...].
            post: the spikes [T, B, ...] of the neurons that it drives, in the shape of the layer's output.
            error: gradient at the layer's output [T, B, ...].
            operator: the layer's weight-gradient operator K.
        """
        spikes = Spikes(pre, post, self.k, operator)
        factor, locality = self.factor(spikes)
        if locality == "weight":
            if len(factor) == 1:
                return factor[0] * _wide(_folded(operator, pre, error)), None
            return (factor * _each_step(operator, pre, error)).sum(0), None
        scaled = (error * factor).to(error.dtype)
        return _wide(_folded(operator, pre, scaled)), scaled if locality == "error_down" else None

    def factor(self, spikes: Spikes) -> tuple[Tensor, str]:
        """The factor and what it multiplies, as in `Rule`."""
        if self.of is None:
            rule = _PRESETS[self.name]
            return rule.factor(spikes, self.alpha), rule.locality
        return _CONTROLS[self.name](_PRESETS[self.of], spikes, self.alpha), _PRESETS[self.of].locality


def register_scaling(name: str, locality: str = "weight") -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator: make `factor(spikes, alpha)` a preset under a name, to be used like the zoo's own.

    Raises:
        ZooError: the name is taken, or an unknown locality.
    """
    if name in [*_PRESETS, *_CONTROLS, NONE]:
        raise ZooError(f"scaling {name!r} is already registered: choose another name")
    if locality not in _LOCALITIES:
        raise one_of("locality", locality, _LOCALITIES)

    def register(factor: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _PRESETS[name] = Rule(factor, locality)
        return factor

    return register


def list_scalings() -> list[str]:
    """The names that the `scaling` keyword takes: presets, then controls, which also need `of`."""
    return [*_PRESETS, *_CONTROLS]


def resolve_scaling(spec: str | Mapping[str, Any] | Scaling | None) -> Scaling | None:
    """Turn None or "none", a preset's name or `{"name": ..., "alpha": ..., "k": ..., "of": ...}` into a `Scaling`.

    alpha is 0.5 and k is exp(-1) unless said; a control (mean_scale, permuted, shuffled) says with `of` which preset it
    is the control of, "causal_trace" unless said.

    Raises:
        ZooError: unknown preset or key, or a number outside [0, 1].
    """
    if spec is None or spec == NONE or isinstance(spec, Scaling):
        return spec if isinstance(spec, Scaling) else None
    name, given = split_spec("scaling", spec, [*list_scalings(), NONE], ["alpha", "k", "of"])
    of = given.get("of", "causal_trace" if name in _CONTROLS else None)
    if name in _PRESETS and of is not None:
        raise ZooError(f"scaling {name} takes no 'of': only the controls {', '.join(_CONTROLS)} do")
    if of is not None and of not in list(_PRESETS):
        raise one_of(f"'of' of scaling {name}", of, list(_PRESETS))
    alpha, k = given.get("alpha", 0.5), given.get("k", TRACE_DECAY)
    return Scaling(name, check_number("scaling alpha", alpha, 0, 1), check_number("scaling k", k, 0, 1), of)


def trace(spikes: Tensor, k: float = TRACE_DECAY) -> Tensor:
    """Spike traces x[t] = k x[t-1] + s[t] of spikes [T, ...]; same shape, float32 at least."""
    steps = [_wide(spikes[0])]
    for s in spikes[1:]:
        steps.append(s + k * steps[-1])
    return torch.stack(steps)


def time_to_spike(post: Tensor, k: float = TRACE_DECAY) -> Tensor:
    """How soon a neuron fires from step t on: y[t] = s[t] + k (1 - s[t]) y[t+1], y[T] = 0; [T, ...], as `trace`."""
    steps = [_wide(post[-1])]
    for s in reversed(post[:-1].unbind()):
        steps.append(s + k * (1 - s) * steps[-1])
    return torch.stack(steps[::-1])


# Evidence, [T, ...] or [1, ...] in the shape of the weight, summed over batch, positions and processes.


def _each_step(operator: WeightGradient, a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([_wide(operator(x, y)) for x, y in zip(a, b, strict=True)])


def _folded(operator: WeightGradient, a: Tensor, b: Tensor) -> Tensor:
    return operator(a.flatten(0, 1), b.flatten(0, 1))


def _traces(s: Spikes) -> tuple[Tensor, Tensor]:
    return _small(s, trace(s.pre, s.k)), _small(s, trace(s.post, s.k))


def _small(s: Spikes, x: Tensor) -> Tensor:
    # Sums over batch and positions overflow float16 at 65,504. G does not depend on the evidence's scale, and a power
    # of two changes no digit: bring the largest possible sum over one step near 1.
    return (x * 2.0 ** -round(math.log2(max(1, s.post[0].numel() // s.post.shape[2])) / 2)).to(s.post.dtype)


def _coincidence(s: Spikes) -> Tensor:
    return _each_step(s.operator, *_traces(s))


def _coincidence_of_window(s: Spikes) -> Tensor:
    return _wide(_folded(s.operator, *_traces(s)))[None]


def _spike_coincidence(s: Spikes) -> Tensor:
    return _each_step(s.operator, _small(s, s.pre), _small(s, s.post))


def _pre_before_post(s: Spikes) -> Tensor:
    return _each_step(s.operator, _small(s, trace(s.pre, s.k)), _small(s, s.post))


def _pre_before_minus_after_post(s: Spikes) -> Tensor:
    earlier = s.k * trace(s.post, s.k)
    earlier = torch.cat([torch.zeros_like(earlier[:1]), earlier[:-1]])
    return _pre_before_post(s) - _each_step(s.operator, _small(s, s.pre), _small(s, earlier))


# Normalisations: evidence to G. Where there is no evidence there is no information, and G is 1.


def _by(reference: Tensor, evidence: Tensor) -> Tensor:
    return torch.where(reference > 0, evidence / reference, torch.ones_like(evidence))


def _over(reduce: Callable[..., Tensor], evidence: Tensor, first: int = 1) -> Tensor:
    """A reduction over all axes from `first` on, which are kept."""
    return reduce(evidence.flatten(first), -1).view(*evidence.shape[:first], *[1] * (evidence.dim() - first))


def _by_max(evidence: Tensor, alpha: float) -> Tensor:
    evidence = _sum_over_ranks(evidence)
    return 1 - alpha + alpha * _by(_over(torch.amax, evidence), evidence)


def _by_mean(evidence: Tensor, alpha: float) -> Tensor:
    evidence = _sum_over_ranks(evidence)
    return 1 - alpha + alpha * _by(_over(torch.mean, evidence), evidence)


def _by_channel_mean(evidence: Tensor, alpha: float) -> Tensor:
    evidence = _sum_over_ranks(evidence)
    return 1 - alpha + alpha * _by(_over(torch.mean, evidence, 2), evidence)


def _signed(evidence: Tensor, alpha: float) -> Tensor:
    evidence = _sum_over_ranks(evidence)
    largest = _over(torch.amax, evidence.abs())
    return 1 + alpha * torch.where(largest > 0, evidence / largest, torch.zeros_like(evidence))


def _local(s: Spikes, alpha: float) -> Tensor:
    return 1 - alpha + alpha * time_to_spike(s.post, s.k)


# Controls: what a rule does, without its information.


def _mean_scale(rule: Rule, s: Spikes, alpha: float) -> Tensor:
    factor = rule.factor(s, alpha)
    return _mean_over_ranks(_over(torch.mean, factor)).expand(factor.shape)


def _permuted(rule: Rule, s: Spikes, alpha: float) -> Tensor:
    factor = rule.factor(s, alpha)
    order = _same_on_all_ranks(torch.stack([torch.randperm(factor[0].numel(), device=factor.device) for _ in factor]))
    return factor.flatten(1).gather(1, order).view(factor.shape)


def _shuffled(rule: Rule, s: Spikes, alpha: float) -> Tensor:
    return rule.factor(s._replace(post=s.post[:, torch.randperm(s.post.shape[1], device=s.post.device)]), alpha)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _sum_over_ranks(evidence: Tensor) -> Tensor:
    # Coincidences are sums over the batch: the ranks of a data-parallel run add theirs before anything is divided, so
    # that N processes compute what one would.
    if _distributed():
        torch.distributed.all_reduce(evidence)
    return evidence


def _mean_over_ranks(x: Tensor) -> Tensor:
    return _sum_over_ranks(x) / torch.distributed.get_world_size() if _distributed() else x


def _same_on_all_ranks(x: Tensor) -> Tensor:
    if _distributed():
        torch.distributed.broadcast(x, 0)
    return x


_LOCALITIES = ["weight", "error", "error_down"]
_PRESETS: dict[str, Rule] = {
    "causal_trace": Rule(lambda s, alpha: _by_max(_coincidence(s), alpha)),
    "window": Rule(lambda s, alpha: _by_max(_coincidence_of_window(s), alpha)),
    "mean_preserving": Rule(lambda s, alpha: _by_mean(_coincidence_of_window(s), alpha)),
    "channel": Rule(lambda s, alpha: _by_channel_mean(_coincidence_of_window(s), alpha)),
    "coincidence": Rule(lambda s, alpha: _by_max(_spike_coincidence(s), alpha)),
    "causal_only": Rule(lambda s, alpha: _by_max(_pre_before_post(s), alpha)),
    "ltp_ltd": Rule(lambda s, alpha: _signed(_pre_before_minus_after_post(s), alpha)),
    "local": Rule(_local, "error"),
    "local_error": Rule(_local, "error_down"),
}
_CONTROLS: dict[str, Callable[[Rule, Spikes, float], Tensor]] = {
    "mean_scale": _mean_scale,
    "permuted": _permuted,
    "shuffled": _shuffled,
}
