"""What a file says about its network, as metadata and in a sentence."""

import json
from typing import Any

import onnx
import safetensors.torch
import torch
from torch import nn

from zoo.checkpoint.weights import network_digest
from zoo.data import normalisation
from zoo.errors import ZooError, quoted
from zoo.files import sha256_of
from zoo.neurons import LIF, SpikingNeuron
from zoo.schema import Tag, fits

from .about import TRAINING
from .graph import LAYOUT, metadata
from .parts import input_size, neuron_layers

_LISTED = 256
"""Parameters of a neuron layer up to so many numbers are in the metadata."""
_RGB = 3
_PIXELS = {
    "direct": "RGB pixels in 0 .. 255 divided by 255, less mean, divided by std",
    "latency": "RGB pixels in 0 .. 255 divided by 255, not normalised",
    "latency, one step": "the spikes 0 or 1 of a time step that latency encoding made of RGB pixels",
    "rate": "the spikes 0 or 1 that rate encoding made of RGB pixels, one frame a time step",
    "frames": "event frames, one a time step",
}


def add_description(proto: onnx.ModelProto, model: nn.Module, tag: str | None = None, **others: str) -> onnx.ModelProto:
    """The graph itself, with metadata and a doc_string about its network; `others` are further entries."""
    entries = describe(model, tag, by_step=metadata(proto, LAYOUT) == "step")
    entries |= {p.key: p.value for p in proto.metadata_props} | others
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, entries)
    name = ".".join(filter(None, (entries["architecture"], entries["tag"])))
    shape = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    proto.doc_string = (
        f"{name}, a spiking network, {entries['timesteps']} time steps, layout {metadata(proto, LAYOUT)}. "
        f"Input: float32 {shape}, {entries['pixels']} (metadata: mean, std). "
        f"Output: logits [batch, {entries['num_classes']}], in the order of the metadata's labels. "
        f"License: {entries['license']}."
    )
    return proto


def describe(model: nn.Module, tag: str | None = None, *, by_step: bool = False) -> dict[str, str]:
    """What a file says about its network, as metadata_props; everything but names and checksums is JSON.

    Args:
        by_step: it takes what the network sees in one time step.
    """
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    sha256 = weights_sha256(model)
    changed = getattr(model, "loaded_digest", None) is not None and sha256 != getattr(model, "weights_sha256", None)
    layers = neuron_layers(model)
    neurons = {name: describe_neuron(layer) for name, layer in layers.items()}
    mean, std = normalisation(model)
    first, *others = neurons.values()
    described = {
        "architecture": cfg.get("architecture") or type(model).__name__,
        "tag": _tag(tag, "" if changed else cfg.get("tag")),
        "timesteps": json.dumps(next(iter(layers.values())).timesteps),
        "num_classes": json.dumps(model.num_classes),
        # One neuron, or a map from layer to neuron where they differ.
        "neuron": json.dumps(neurons if any(other != first for other in others) else first),
        "mean": json.dumps(list(mean)),
        "std": json.dumps(list(std)),
        "input_size": json.dumps(input_size(model)),
        "weights_sha256": sha256,
    }
    # Facts of the training, as far as the checkpoint tells them, for the measurements of this file.
    trained: dict[str, Any] = (not changed and getattr(model, "training_args", None)) or {}
    described |= {key: json.dumps(trained[key]) for key in TRAINING if isinstance(trained.get(key), int)}
    encoding = getattr(model, "encoding", "direct")
    pixels = _PIXELS["latency, one step" if by_step and encoding == "latency" else encoding]
    if cfg["input_size"][0] != _RGB:
        pixels = pixels.replace("RGB ", "")
    license = (not changed and cfg.get("license")) or "not stated"
    described |= {"encoding": json.dumps(encoding), "pixels": pixels, "license": license}
    if len(cfg.get("label_names") or ()) == model.num_classes:
        described["labels"] = json.dumps(list(cfg["label_names"]), ensure_ascii=False)
    return described


def describe_neuron(layer: SpikingNeuron) -> dict[str, Any]:
    """A layer of neurons in JSON values: LIF and its kin by their numbers, others by class, keywords and parameters."""
    if isinstance(layer, LIF) and layer.of_numbers:
        reset = "soft" if layer.soft_reset else "hard"
        numbers = {"decay": torch.as_tensor(layer.decay).item(), "threshold": layer.threshold}
        return numbers | {"reset": reset, "decay_input": bool(layer.decay_input)}
    learned = {key: value.tolist() for key, value in layer.named_parameters() if value.numel() <= _LISTED}
    return {"kind": type(layer).__name__} | layer.spec_values() | learned


def _tag(asked: str | None, own: str | None) -> str:
    tag = (own if asked is None else asked) or ""
    if not fits(Tag, tag):
        raise ZooError(f"tag must be letters, digits, _ . and -, at most 100, not {quoted(tag)}")
    return tag


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of the checkpoint that the weights came from; if there is none, or they were changed since, as by
    fine-tuning, of the file that they would be saved to."""
    known = getattr(model, "weights_sha256", None) or model.pretrained_cfg.get("weights_sha256")  # type: ignore[operator, union-attr]
    loaded = getattr(model, "loaded_digest", None)
    if known and (loaded is None or network_digest(model) == loaded):
        return str(known)
    # Copies, as safetensors refuses tensors that share memory, such as a weight under two names.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    return sha256_of(safetensors.torch.save(tensors, {"format": "pt"}))
