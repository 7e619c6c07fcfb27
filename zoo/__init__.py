"""snn-zoo: spiking neural networks by name, with trained weights.

>>> import zoo
>>> model = zoo.create_model("sresnet19_gs", timesteps=4)
>>> model(images).shape  # images [B, 3, 32, 32] -> logits [B, 10]
"""

from . import models as models
from .checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from .errors import ZooError
from .kernels import list_kernels
from .metrics import SpikeCounter
from .neuron import create_neuron, list_neurons
from .plugin import load_plugin
from .registry import create_model, is_model, list_models, list_pretrained, model_info, register_model
from .scaling import list_scalings, register_scaling
from .surrogate import list_surrogates

__version__ = "0.1.0"
__all__ = [
    "SpikeCounter",
    "ZooError",
    "create_model",
    "create_neuron",
    "is_model",
    "list_kernels",
    "list_models",
    "list_neurons",
    "list_pretrained",
    "list_scalings",
    "list_surrogates",
    "load_checkpoint",
    "load_plugin",
    "model_info",
    "read_checkpoint",
    "register_model",
    "register_scaling",
    "save_checkpoint",
]
