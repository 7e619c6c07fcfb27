"""How large a network is, without running it, by NeuroBench's definitions."""

from typing import Any

from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers with synapses."""


def footprint(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, as they are in memory, but for what only training keeps.

    NeuroBench counts that too: factors of gradient scaling, which are in no checkpoint.
    """
    kept = {id(value): value for value in model.state_dict(keep_vars=True).values()}  # what is shared counts once
    return sum(value.numel() * value.element_size() for value in kept.values() if isinstance(value, Tensor))


def connection_sparsity(model: nn.Module) -> float | None:
    """The share, 0 to 1, of the weights of convolutions and linear layers that is 0; None without such layers.

    NeuroBench rounds it to four digits.
    """
    weights: list[Any] = [module.weight for module in model.modules() if isinstance(module, LAYERS)]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else None
