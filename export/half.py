"""fp16: weights of convolutions over spikes in half precision, computed is in float32.

So a file has half the size, unless most of its weights are those of fully connected layers.

A checkpoint of `weights: fp16` loses nothing: batch normalisation is not folded into them (see `export.norms`).
Membrane potentials, thresholds and currents stay in float32, where a rounding would flip the decision to spike; so do
the stem, whose rounding meets every image in full, and the classifier. ONNX Runtime casts the weights to float32 once,
when it loads the file. To compute in half precision would be no gain on a CPU, whose provider casts all that a
convolution reads and writes to float32 and back; and for bfloat16 it has none.
"""

from collections.abc import Iterable

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from zoo.errors import ZooError

from .assembly import Assembly


def is_half(network: nn.Module) -> bool:
    """Whether half precision holds the weights of a network's convolutions as they are: `weights: fp16` of a recipe."""
    weights = [module.weight.detach() for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]
    return all(bool((weight.half() == weight).all()) for weight in weights)


def stored_in_half(g: Assembly, weights: Iterable[str]) -> None:
    """Store these constants of a graph in half precision.

    Raises:
        ZooError: there is none, or one is too large for it.
    """
    casts = []
    if not (weights := list(weights)):
        raise ZooError("no fp16: this network has no convolution over spikes with weights of its own")
    for name in weights:
        array = numpy_helper.to_array(g.constants.pop(name))
        if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
            raise ZooError(f"no fp16: the weight {name} has numbers beyond half precision; take fp32")
        half = g.constant(f"{name}/half", array.astype(np.float16), shared=False)
        casts.append(helper.make_node("Cast", [half], [name], name, to=TensorProto.FLOAT))
    g.nodes[:0] = casts
