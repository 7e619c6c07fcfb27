"""Images as a network takes them, for the gate and for the scales of eight bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from zoo.data import normalisation
from zoo.errors import ZooError

from .images import check_images, is_file, normalise
from .parts import input_size, network_input


def check_source(model: nn.Module, data: str) -> None:
    """Raise ZooError unless a network takes what `data` holds: one of frames takes no data set of images."""
    shape = network_input(model)
    if len(shape) == 4 and not is_file(data):
        raise ZooError(
            f"this network takes frames {['N', *shape]}, and {data} has images: give an .npz or .npy of frames"
        )


def network_inputs(model: nn.Module, images: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels [N, C, H, W], normalised; frames [N, T, C, H, W] as they are.

    Raises:
        ZooError: pixels that do not fit. Of frames, see `check_inputs`.
    """
    if len(network_input(model)) == 4:
        return images.astype(np.float32)
    check_images(images, input_size(model))
    return normalise(images, *normalisation(model))
