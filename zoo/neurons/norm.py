"""Normalisations by name, and batch normalisation as the fused kernels see it.

Time is folded into the batch, so plain batch normalisation already takes its statistics over all time steps:

    bn     weight * (x - mean) / sqrt(var + eps) + bias
    tdbn   the same, with the weight starting at alpha * threshold (Zheng et al. 2021, arXiv 2011.05280, eq. 5 to 7),
           lower in the blocks of sresnet and ms_resnet, which start near the identity
    tebn   the same, times a learnable factor for each time step (Duan et al. 2022, NeurIPS, TEBN)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

from ..errors import ZooError
from ..kernels.lif import Branch, wide
from ..specs import Spec, check_integer, check_positive, check_timesteps, split_spec

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_KEYS: dict[str, list[str]] = {"bn": [], "tdbn": ["alpha"], "tebn": []}  # name -> the keywords beside it


def list_norms() -> list[str]:
    """Returns the names that the `norm` keyword takes."""
    return list(_KEYS)


def create_norm(spec: Spec, channels: int, timesteps: int, threshold: float) -> nn.Module:
    """Returns a normalisation of currents [T*B, C, H, W] from a name or `{"name": "tdbn", "alpha": 0.7}`.

    Args:
        spec: "bn" and "tdbn" are PyTorch's BatchNorm2d, which the fused kernels take. `alpha` (1 by default) is for
            "tdbn": the paper takes 1 / sqrt(2) where two normalised branches are summed. Its weight is the paper's
            lambda * alpha * threshold: the same function; under SGD, steps of it are not scaled by that factor.
        threshold: of the neurons behind it, > 0.
    """
    name, _ = split_spec("norm", spec, _KEYS)
    check_integer("channels", channels, 1)
    if name == "tebn":
        return TEBN(channels, timesteps)
    norm = nn.BatchNorm2d(channels)
    nn.init.constant_(norm.weight, first_weight(spec, threshold))
    return norm


def first_weight(spec: Spec, threshold: float) -> float:
    """What the weight of a normalisation starts at, the standard deviation of its currents; see `create_norm`."""
    name, given = split_spec("norm", spec, _KEYS)
    if name != "tdbn":
        return 1.0
    return check_positive("alpha of tdbn", given.get("alpha", 1.0)) * check_positive("threshold", threshold)


class TEBN(nn.Module):
    """Temporal effective batch normalisation: bn(x) times p[t], `p` [T] starting at 1.

    It holds a BatchNorm2d instead of being one, so that nothing takes it for a plain one and drops the factor.
    """

    learns_per_step = True
    """Whether parameters belong to single time steps, whose number is then fixed."""

    def __init__(self, channels: int, timesteps: int) -> None:
        super().__init__()
        self.timesteps = check_timesteps(timesteps)
        self.bn = nn.BatchNorm2d(channels)
        self.p = nn.Parameter(torch.ones(timesteps))

    @property
    def weight(self) -> Tensor:
        return self.bn.weight

    @property
    def bias(self) -> Tensor:
        return self.bn.bias

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C, H, W], time-major, to the same shape and dtype; ZooError where T does not divide the first axis."""
        if x.shape[0] % self.timesteps:
            raise ZooError(f"first axis {x.shape[0]} is not a multiple of {self.timesteps} time steps")
        y = self.bn(x).unflatten(0, (self.timesteps, -1))
        return (y * self.p.to(y.dtype).view(-1, 1, 1, 1, 1)).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"timesteps={self.timesteps}"


def is_per_step(norm: nn.Module | None) -> bool:
    """Whether `norm` treats time steps differently, so that a current given once must be repeated in front of it."""
    return getattr(norm, "learns_per_step", False)


def can_fuse(norm: nn.Module | None, x: Tensor) -> bool:
    """Whether a kernel can stand in for `norm` on `x` [B, C, ...]: for none, and for PyTorch's own batch normalisation
    that nobody watches, on data that it takes."""
    if norm is None:
        return True
    dims = (2, 3) if type(norm) is nn.BatchNorm1d else (4,) if type(norm) is nn.BatchNorm2d else ()
    if x.dim() not in dims or x.shape[1] != norm.num_features:
        return False
    watched = "forward" in vars(norm) or any(
        getattr(norm, hooks) or getattr(all_modules, f"_global{hooks}") for hooks in _HOOKS
    )
    of_batch = norm.training or norm.running_mean is None
    return not watched and (x.numel() > x.shape[1] or not of_batch)


def branch(x: Tensor, norm: nn.Module | None) -> Branch:
    """Returns a summand of the current with the normalisation in front of it."""
    if norm is None:
        return Branch(x)

    def values(value: Any) -> Tensor | None:
        return None if value is None else value.to(wide(x.dtype)).contiguous()  # kernels read its address

    frozen = not norm.training and norm.running_mean is not None
    mean, var = (norm.running_mean, norm.running_var) if frozen else (None, None)
    eps: Any = norm.eps
    return Branch(x, values(norm.weight), values(norm.bias), values(mean), values(var), eps)


@torch.no_grad()
def update_statistics(norm: nn.Module, mean: Tensor, var: Tensor, count: int) -> None:
    """Does what a forward in training mode does to the running statistics, if the normalisation keeps any, given `mean`
    and biased `var` [C] of a batch and the `count` of values behind each."""
    if not norm.training or not norm.track_running_stats or norm.running_mean is None:
        return
    batches: Any = norm.num_batches_tracked
    if batches is not None:
        batches.add_(1)
    factor: Any = norm.momentum
    if factor is None:
        factor = 0.0 if batches is None else 1 / float(batches)
    unbiased = count / max(count - 1, 1)
    for running, value, alpha in ((norm.running_mean, mean, factor), (norm.running_var, var, factor * unbiased)):
        running.mul_(1 - factor).add_(value, alpha=alpha)  # type: ignore[operator]
