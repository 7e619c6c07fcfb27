"""Images as a network takes them, for the gate and for the scales of eight bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.data import normalisation
from zoo.errors import ZooError

from .images import as_array, check_images, is_file, normalise
from .parts import input_size, network_input


def check_source(model: nn.Module, data: str) -> None:
    """Raise ZooError unless a network takes what `data` holds: one of frames takes no data set of images."""
    shape = network_input(model)
    if len(shape) == 4 and not is_file(data):
        raise ZooError(
            f"this network takes frames {['N', *shape]}, and {data} has images: give an .npz or .npy of frames"
        )


def network_inputs(model: nn.Module, images: NDArray[Any] | Tensor) -> NDArray[np.float32]:
    """uint8 pixels [N, C, H, W], normalised; float32 ones, which are so already, and frames [N, T, C, H, W] as they
    are.

    Raises:
        ZooError: images that do not fit the network, or are not finite.
    """
    images, shape = as_array(images), network_input(model)
    if len(shape) == 3:
        check_images(images, input_size(model))
        return normalise(images, *normalisation(model))
    if images.shape[1:] != shape or not len(images) or not np.isfinite(images).all():
        raise ZooError(f"expected finite frames {['N', *shape]}, got {list(images.shape)}")
    return images.astype(np.float32)
