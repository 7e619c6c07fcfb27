"""The family of gradient scaling rules: what each computes from the spikes before and behind a layer.

With spikes s, traces x[t] = k x[t-1] + s[t], x[-1] = 0, and the layer's weight-gradient operator K(a, b) for input a
and output gradient b, summed over batch and positions. A rule is four choices and a strength alpha:

    evidence       E[t] = K(a[t], b[t]) of spikes or traces, in the shape of the weight; or of the post spikes alone
    time           a factor for each step, or one for the whole window from sum_t E[t]
    normalisation  by the largest entry of the layer, by its mean, by the mean of each output channel
    locality       the factor multiplies the weight gradient g[t] of each step; the error that it is computed from; or
                   that error and the one passed down as well

Sources: Park et al. 2023 (arXiv 2308.00558) for `final_trace`, `causal_trace` and `pre_pre`, see `zoo.scaling`; the
others are variations of them.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor

from ..errors import ZooError, one_of
from ..kernels import can_weigh_steps
from ..kernels.lif import weighted_steps
from ..plugins import check_new

WeightGradient = Callable[[Tensor, Tensor], Tensor]
"""K: (layer input [N, ...], gradient at the layer's output [N, ...]) -> gradient in the shape of the weight."""

TRACE_DECAY = math.exp(-1)
NORM_SCALE = "norm_scale"
LOCALITIES = ["weight", "error", "error_down"]


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
    dtype: torch.dtype
    """What K is to compute in; spikes may come in one byte each."""
    potential: Tensor | None = None
    """Membrane potential minus threshold of the neurons behind [T, B, ...], as their surrogate gets it; for a rule that
    asks for it."""
    rank: int | None = None
    """How many terms approximate the evidence of a whole window, see `window_terms`; None for all, which is exact."""


class Rule(NamedTuple):
    """A way to scale: `factor(spikes, alpha)` multiplies what `locality` names.

    locality is one of
        "weight"     the weight gradient: the factor G is [T, ...], or [1, ...] if `window`, then in the shape of the
                     weight
        "error"      the error [T, B, ...] that the weight gradient is computed from: the factor is in its shape
        "error_down" the same, and the error passed down as well
    """

    factor: Callable[[Spikes, float], Tensor]
    locality: str = "weight"
    window: bool = False
    counts: bool = False
    """Whether it takes spikes as int8 where a layer keeps them so; else they come in the layer's precision."""
    rank: bool = False
    """Whether its evidence can be approximated in few terms, see `window_terms`."""
    one_shape: bool = False
    """Whether it needs a layer whose input and output have one shape."""
    potential: bool = False
    """Whether it reads the membrane potentials."""
    text: str = ""
    """Its formula and source."""


def trace(spikes: Tensor, k: float = TRACE_DECAY, dtype: torch.dtype = torch.float32) -> Tensor:
    """Spike traces x[t] = k x[t-1] + s[t] of spikes [T, ...]; same shape, the wider of float32, `dtype`, theirs."""
    steps = [widened(spikes[0], dtype)]
    for s in spikes[1:]:
        steps.append(s + k * steps[-1])
    return _unfolded(steps)


def time_to_spike(post: Tensor, k: float = TRACE_DECAY, dtype: torch.dtype = torch.float32) -> Tensor:
    """How soon a neuron fires from step t on: y[t] = s[t] + k (1 - s[t]) y[t+1], y[T] = 0; [T, ...], as `trace`."""
    steps = [widened(post[-1], dtype)]
    for s in reversed(post[:-1].unbind()):
        steps.append(s + k * (1 - s) * steps[-1])
    return _unfolded(steps[::-1])


def _unfolded(steps: list[Tensor]) -> Tensor:
    return torch.cat(steps).unflatten(0, (len(steps), -1))  # unlike stack, keeps a channels_last layout


# Evidence, [T, ...] or [1, ...] in the shape of the weight, summed over batch, positions and processes.


def each_step(operator: WeightGradient, a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
    return torch.stack([widened(operator(x, y)) for x, y in zip(a, b, strict=True)])


def folded(operator: WeightGradient, a: Tensor, b: Tensor) -> Tensor:
    return operator(a.flatten(0, 1), b.flatten(0, 1))


def _traces(s: Spikes, spikes: Tensor) -> list[Tensor]:
    """`trace` of the spikes before or behind the layer, step by step, brought near 1, in what K computes in."""
    if not can_weigh_steps(spikes, s.dtype):
        return list(_small(s, trace(spikes, s.k, s.dtype)))
    steps = range(len(spikes))
    return _sums(s, spikes, [[s.k ** (t - i) if i <= t else 0.0 for i in steps] for t in steps])


def _sums(s: Spikes, spikes: Tensor, terms: Sequence[Sequence[float]]) -> list[Tensor]:
    """For each term, a weight for each step: the sum of the spikes in these weights, brought near 1, as `_traces`."""
    sums = []
    for term in terms:
        weights = [_unit(s) * weight for weight in term]
        if can_weigh_steps(spikes, s.dtype):
            sums.append(weighted_steps(spikes, weights, s.dtype))
            continue
        total = widened(spikes[0], s.dtype) * weights[0]
        for step, weight in zip(spikes[1:], weights[1:], strict=True):
            total.add_(step, alpha=weight)
        sums.append(total.to(s.dtype))
    return sums


def _small(s: Spikes, x: Tensor) -> Tensor:
    return (x * _unit(s)).to(s.dtype)


def _unit(s: Spikes) -> float:
    # Sums over batch and positions overflow float16 at 65,504. G does not depend on the evidence's scale, and a power
    # of two changes no digit: bring the largest possible sum over one step of an image near 1, not of the batch, of
    # which each process may have another number of images.
    return 2.0 ** -round(math.log2(max(1, s.post[0, 0].numel() // s.post.shape[2])) / 2)


def _coincidence_of_window(s: Spikes) -> Tensor:
    if s.rank is None or s.rank >= len(s.pre):
        return widened(folded(s.operator, *(_unfolded(_traces(s, spikes)) for spikes in (s.pre, s.post))))[None]
    terms = window_terms(len(s.pre), s.k)[: s.rank]
    a, b = (_unfolded(_sums(s, spikes, terms)) for spikes in (s.pre, s.post))
    return widened(folded(s.operator, a, b))[None].clamp(min=0)  # what was left out may have held up a small sum


def _coincidence_of_last_step(s: Spikes) -> Tensor:
    last = [[s.k**age for age in reversed(range(len(s.pre)))]]
    a, b = (_sums(s, spikes, last)[0] for spikes in (s.pre, s.post))
    return widened(s.operator(a, b))[None]


def _coincidence_of_pre(s: Spikes) -> Tensor:
    x = _traces(s, s.pre)
    return each_step(s.operator, x, x)


@torch.compiler.assume_constant_result
def window_terms(timesteps: int, k: float) -> tuple[tuple[float, ...], ...]:
    """Weights of the T time steps in each of T terms, the most important first, for coincidences over a whole window.

    sum_t K(x_pre[t], x_post[t]) is bilinear in the spikes: sum_ij M_ij K(s_pre[i], s_post[j]) with M_ij = sum_t
    k^(2t-i-j) over t >= max(i, j). With M = sum_r v_r v_r', each term is K of the two sums over time, weighted by v_r:
    one evaluation of K instead of T. The first term alone takes coincidences of weighted firing rates.
    """
    return _window_terms(timesteps, k)


@functools.cache
def _window_terms(timesteps: int, k: float) -> tuple[tuple[float, ...], ...]:
    steps = torch.arange(timesteps)
    response = torch.where(steps[:, None] >= steps, k ** (steps[:, None] - steps).clamp(min=0).double(), 0.0)
    values, vectors = torch.linalg.eigh(response.T @ response)
    return tuple(tuple(term) for term in (vectors * values.clamp(min=0).sqrt()).T.flip(0).tolist())


def _pre_before_post(s: Spikes) -> Tensor:
    return each_step(s.operator, _traces(s, s.pre), _small(s, s.post))


def _pre_before_minus_after_post(s: Spikes) -> Tensor:
    earlier = s.k * trace(s.post, s.k, s.dtype)
    earlier = torch.cat([torch.zeros_like(earlier[:1]), earlier[:-1]])
    return _pre_before_post(s) - each_step(s.operator, _small(s, s.pre), _small(s, earlier))


# Normalisations: evidence to G. Where there is no evidence there is no information, and G is 1.


def _over(reduce: Callable[..., Tensor], evidence: Tensor, first: int = 1) -> Tensor:
    """Returns a reduction over all axes from `first` on, which are kept."""
    return reduce(evidence.flatten(first), -1).view(*evidence.shape[:first], *[1] * (evidence.dim() - first))


def _by(reduce: Callable[..., Tensor], evidence: Tensor, alpha: float, first: int = 1) -> Tensor:
    evidence = sum_over_processes(evidence)
    reference = _over(reduce, evidence, first)
    return 1 - alpha + alpha * torch.where(reference > 0, evidence / reference, torch.ones_like(evidence))


def _by_max(evidence: Tensor, alpha: float) -> Tensor:
    return _by(torch.amax, evidence, alpha)


def _signed(evidence: Tensor, alpha: float) -> Tensor:
    evidence = sum_over_processes(evidence)
    largest = _over(torch.amax, evidence.abs())
    return 1 + alpha * torch.where(largest > 0, evidence / largest, torch.zeros_like(evidence))


def _local(s: Spikes, alpha: float) -> Tensor:
    return 1 - alpha + alpha * time_to_spike(s.post, s.k, s.dtype)


# Controls: what a rule does, without its information.


def _mean_scale(rule: Rule, s: Spikes, alpha: float) -> Tensor:
    """Every factor of a layer its mean: the same size of step, and nothing of which synapse it is."""
    factor = rule.factor(s, alpha)
    return mean_over_processes(_over(torch.mean, factor)).expand(factor.shape)


def _permuted(rule: Rule, s: Spikes, alpha: float) -> Tensor:
    """Returns the same factors, each given to another synapse of the layer at random."""
    factor = rule.factor(s, alpha)
    order = torch.stack([torch.randperm(factor[0].numel(), device=factor.device) for _ in factor])
    if _distributed() and rule.locality == "weight":
        torch.distributed.broadcast(order, 0)
    return factor.flatten(1).gather(1, order).view(factor.shape)


def _norm_scale(rule: Rule, s: Spikes, alpha: float) -> Tensor:
    """The plain gradient of a layer, in the norm that the scaled one has: its size of step, not its direction."""
    return rule.factor(s, alpha)  # and `same_norm` in its place, where the gradient is known


def same_norm(gradient: Tensor, scaled: Tensor) -> Tensor:
    """`gradient` in the norm of `scaled`, both of all ranks: the step of a rule, in the plain direction."""
    whole = mean_over_processes(gradient).norm()
    return gradient * (mean_over_processes(scaled).norm() / whole.clamp(min=torch.finfo(gradient.dtype).tiny))


def _shuffled(rule: Rule, s: Spikes, alpha: float) -> Tensor:
    """Factors from coincidences with the spikes that another image of the batch had behind the synapse."""
    order = torch.randperm(s.post.shape[1], device=s.post.device)
    potential = s.potential if s.potential is None else s.potential[:, order]
    return rule.factor(s._replace(post=s.post[:, order], potential=potential), alpha)


def widened(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`x` in the wider of its own precision, float32 and `dtype`."""
    return x.to(torch.promote_types(torch.promote_types(x.dtype, torch.float32), dtype))


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def sum_over_processes(x: Tensor) -> Tensor:
    """Returns the sum of a tensor over all processes of a data-parallel run; the tensor itself where there is one.

    Coincidences are sums over the batch: processes add theirs before anything is divided, so that N of them compute
    what one would. All processes must call it alike.
    """
    if not _distributed():
        return x
    total = x.clone(memory_format=torch.contiguous_format)  # NCCL takes no other
    torch.distributed.all_reduce(total)
    return total


def mean_over_processes(x: Tensor) -> Tensor:
    """Returns the mean of a tensor over all processes, as `sum_over_processes`."""
    return sum_over_processes(x) / torch.distributed.get_world_size() if _distributed() else x


_CODE = "the public code of the first author of arXiv 2308.00558"
_G = "G = 1 - alpha + alpha E / max E"
PRESETS: dict[str, Rule] = {
    "final_trace": Rule(
        lambda s, alpha: _by_max(_coincidence_of_last_step(s), alpha), window=True, counts=True,
        text=f"E = K(x_pre[T-1], x_post[T-1]), traces as they stand after the last step; {_G}; dW = G sum_t g[t]. The "
        f"only version with pre and post that ran in {_CODE} (11 May 2023).",
    ),
    "causal_trace": Rule(
        lambda s, alpha: _by_max(each_step(s.operator, _traces(s, s.pre), _traces(s, s.post)), alpha), counts=True,
        text=f"E[t] = K(x_pre[t], x_post[t]); {_G} for each step; dW = sum_t G[t] g[t]. What the names of later "
        f"versions of {_CODE} say.",
    ),
    "pre_pre": Rule(
        lambda s, alpha: _by_max(_coincidence_of_pre(s), alpha), counts=True, one_shape=True,
        text=f"E[t] = K(x_pre[t], x_pre[t]), no post-synaptic spike in it; {_G} for each step. What {_CODE} computes "
        "from 23 May 2023 on, where the post trace is read from the pre neuron: a slip, offered because it may be "
        "behind the paper's numbers. Only layers whose input and output have one shape.",
    ),
    "window": Rule(
        lambda s, alpha: _by_max(_coincidence_of_window(s), alpha), window=True, counts=True, rank=True,
        text=f"E = sum_t K(x_pre[t], x_post[t]); {_G}; dW = G sum_t g[t].",
    ),
    "mean_preserving": Rule(
        lambda s, alpha: _by(torch.mean, _coincidence_of_window(s), alpha), window=True, counts=True, rank=True,
        text="E as in window; G = 1 - alpha + alpha E / mean E, whose mean is 1.",
    ),
    "channel": Rule(
        lambda s, alpha: _by(torch.mean, _coincidence_of_window(s), alpha, 2), window=True, counts=True, rank=True,
        text="As mean_preserving, with the mean of each output channel.",
    ),
    "coincidence": Rule(
        lambda s, alpha: _by_max(each_step(s.operator, _small(s, s.pre), _small(s, s.post)), alpha), counts=True,
        text=f"E[t] = K(s_pre[t], s_post[t]), spikes instead of traces; {_G} for each step.",
    ),
    "causal_only": Rule(
        lambda s, alpha: _by_max(_pre_before_post(s), alpha), counts=True,
        text=f"E[t] = K(x_pre[t], s_post[t]), pre at or before post; {_G} for each step.",
    ),
    "ltp_ltd": Rule(
        lambda s, alpha: _signed(_pre_before_minus_after_post(s), alpha), counts=True,
        text="D[t] = K(x_pre[t], s_post[t]) - K(s_pre[t], k x_post[t-1]); G = 1 + alpha D / max |D| for each step.",
    ),
    "local": Rule(
        _local, "error",
        text="y[t] = s_post[t] + k (1 - s_post[t]) y[t+1], how soon the neuron fires; the error of the weight gradient "
        "times 1 - alpha + alpha y.",
    ),
    "local_error": Rule(_local, "error_down", text="As local, and the error passed down as well."),
}  # fmt: skip
CONTROLS: dict[str, Callable[[Rule, Spikes, float], Tensor]] = {
    "mean_scale": _mean_scale,
    "permuted": _permuted,
    "shuffled": _shuffled,
    NORM_SCALE: _norm_scale,
}


def register_scaling(
    name: str, locality: str = "weight", window: bool = False, potential: bool = False
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator: makes `factor(spikes, alpha)` a preset under a name, to be used like ours; see `Rule` and `Spikes`.

    Sums over the batch must be `zoo.sum_over_processes` of those here: or each process would have a rule of its own.

    Raises:
        ZooError: no name, one that is taken, an unknown locality, one of errors with `potential`, or no function.
    """
    check_new("scaling", name)
    if locality not in LOCALITIES:
        raise one_of("locality", locality, LOCALITIES)
    if potential and locality != "weight":
        raise ZooError(f"scaling {name!r}: membrane potentials are for rules of locality 'weight', not {locality!r}")

    def register(factor: Callable[..., Tensor]) -> Callable[..., Tensor]:
        before = PRESETS[name].factor if name in list(PRESETS) else CONTROLS.get(str(name))
        check_new("scaling", name, factor, before)
        if not callable(factor):
            raise ZooError(f"scaling {name!r} is a function of (spikes, alpha), not {factor!r:.200}")
        PRESETS[name] = Rule(factor, locality, window, rank=window, potential=potential)
        return factor

    return register
