"""Fine-tuning: which part of a network keeps what it has learnt."""

import re

from torch import nn

from zoo.errors import ZooError
from zoo.network import SpikingNetwork


def freeze(model: SpikingNetwork, stages: int) -> list[nn.Module]:
    """Take the stem and the first stages out of training.

    Args:
        stages: how many, up to all of them: then the head alone learns. 0 freezes nothing, the stem neither.

    Returns:
        The frozen modules: to be kept in evaluation mode while the others train, so that the running statistics of
        their batch normalisation stay as well.

    Raises:
        ZooError: the network has fewer stages.
    """
    if not stages:
        return []
    if stages > len(model.stages):
        architecture = model.pretrained_cfg["architecture"]
        raise ZooError(f"cannot freeze {stages} stages: {architecture} has {len(model.stages)}")
    stem = re.compile(model.group_matcher(coarse=True)["stem"])
    frozen = [module for name, module in model.named_children() if stem.match(name) and module.state_dict()]
    frozen += model.stages[:stages]
    for module in frozen:
        module.requires_grad_(False)
    return frozen
