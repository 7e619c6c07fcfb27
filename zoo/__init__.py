"""snn-zoo: spiking neural networks by name, with trained weights.

>>> import zoo
>>> model = zoo.create_model("sresnet19_gs", timesteps=4)
>>> model(images).shape  # images [B, 3, 32, 32] -> logits [B, 10]
"""

from . import models as models
from .checkpoint import read_checkpoint, save_checkpoint
from .data import DataSet, list_datasets, load_dataset, register_dataset
from .errors import ZooError
from .kernels import list_kernels
from .kernels.event_layers import event_driven
from .load import load, load_checkpoint
from .metrics import SpikeCounter
from .network import SpikingNetwork
from .neurons import SpikingNeuron, create_neuron, list_neurons, register_neuron
from .neurons.surrogate import list_surrogates, register_surrogate
from .plugins import load_plugin
from .registry import (
    Variant,
    create_model,
    is_model,
    list_models,
    list_pretrained,
    model_info,
    register_family,
    register_model,
)
from .scaling import list_scalings, register_scaling, sum_over_processes

__version__ = "0.1.0"
__all__ = [
    "DataSet",
    "SpikeCounter",
    "SpikingNetwork",
    "SpikingNeuron",
    "Variant",
    "ZooError",
    "create_model",
    "create_neuron",
    "event_driven",
    "is_model",
    "list_datasets",
    "list_kernels",
    "list_models",
    "list_neurons",
    "list_pretrained",
    "list_scalings",
    "list_surrogates",
    "load",
    "load_checkpoint",
    "load_dataset",
    "load_plugin",
    "model_info",
    "read_checkpoint",
    "register_dataset",
    "register_family",
    "register_model",
    "register_neuron",
    "register_scaling",
    "register_surrogate",
    "save_checkpoint",
    "sum_over_processes",
]
