"""Export: a trained network to one verified .onnx file that says what it is."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.files import atomic_write, sha256_of
from zoo.neurons import LIF, SpikingNeuron

from .about import TRAINING
from .counts import add_spike_counts
from .graph import SPIKE_VALUES, build_graph, check_graph, spike_values
from .parts import input_size, neuron_layers
from .verify import verify as run_verification

_LISTED = 256
"""Parameters of a neuron layer up to so many numbers are in the metadata."""


def to_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    spike_counts: bool = False,
    tag: str | None = None,
    verify: bool = True,
    images: NDArray[np.float32] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write the time-unrolled graph of a network: "input" [batch, C, H, W] to "logits" [batch, classes].

    The file appears under its name only once it is whole and verified; the network stays as it is.

    Args:
        model: a network of the zoo.
        path: the .onnx file.
        spike_counts: one more output per neuron layer, "spikes/<layer>", float32 [batch, timesteps].
        tag: names the training; the checkpoint's own by default.
        verify: run the gate of `export.verify`.
        images: normalised images [N, C, H, W] for that gate; random ones without.
        metadata: further entries of the file's metadata_props.

    Returns:
        JSON values: file, bytes, sha256, nodes, seconds (of the export alone), metadata, verification (None if it was
        not run).

    Raises:
        ZooError: a network that cannot be exported, a failed verification, a path that cannot be written.
    """
    path = Path(path)
    _check_writable(path)
    begin = time.perf_counter()
    with tqdm(total=1, desc="tracing", leave=False, disable=None) as bar:
        proto = build_graph(model)
        bar.update()
    proto.producer_name, proto.producer_version = "snn-zoo", zoo.__version__
    described = describe(model, tag) | {SPIKE_VALUES: json.dumps(spike_values(proto))} | dict(metadata or {})
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, described)
    if spike_counts:
        proto = add_spike_counts(proto)
        check_graph(proto)
    data = proto.SerializeToString(deterministic=True)
    seconds = time.perf_counter() - begin
    verification = run_verification(model, data, images) if verify else None
    atomic_write(path, data)
    return {
        "file": path.name, "bytes": len(data), "sha256": sha256_of(data), "nodes": len(proto.graph.node),
        "seconds": round(seconds, 2), "metadata": described, "verification": verification,
    }  # fmt: skip


def describe(model: nn.Module, tag: str | None = None) -> dict[str, str]:
    """What a file says about its network, as metadata_props; everything but names and checksums is JSON."""
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    layers = neuron_layers(model)
    neurons = {name: describe_neuron(layer) for name, layer in layers.items()}
    first, *others = neurons.values()
    described = {
        "architecture": cfg.get("architecture") or type(model).__name__,
        "tag": (cfg.get("tag") if tag is None else tag) or "",
        "timesteps": json.dumps(next(iter(layers.values())).timesteps),
        "num_classes": json.dumps(model.num_classes),
        # One neuron, or a map from layer to neuron where they differ.
        "neuron": json.dumps(neurons if any(other != first for other in others) else first),
        "mean": json.dumps(cfg["mean"]),
        "std": json.dumps(cfg["std"]),
        "input_size": json.dumps(input_size(model)),
        "weights_sha256": weights_sha256(model),
    }
    # Facts of the training, as far as the checkpoint tells them, for the measurements of this file.
    trained: dict[str, Any] = getattr(model, "training_args", None) or {}
    described |= {key: json.dumps(trained[key]) for key in TRAINING if isinstance(trained.get(key), int)}
    if cfg.get("label_names"):
        described["labels"] = json.dumps(list(cfg["label_names"]), ensure_ascii=False)
    return described


def describe_neuron(layer: SpikingNeuron) -> dict[str, Any]:
    """A layer of neurons in JSON values: LIF and its kin by their numbers, others by class, keywords and parameters."""
    if isinstance(layer, LIF) and layer.fused:
        reset = "soft" if layer.soft_reset else "hard"
        numbers = {"decay": torch.as_tensor(layer.decay).item(), "threshold": layer.threshold}
        return numbers | {"reset": reset, "decay_input": bool(layer.decay_input)}
    told = {key: getattr(layer, key, None) for key in ("threshold", *layer.spec_keys)}
    plain = {key: value for key, value in told.items() if isinstance(value, bool | int | float | str)}
    learned = {key: value.tolist() for key, value in layer.named_parameters() if value.numel() <= _LISTED}
    return {"kind": type(layer).__name__} | plain | learned


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of the checkpoint that the weights came from, or else of the file that they would be saved to."""
    known = getattr(model, "weights_sha256", None) or model.pretrained_cfg.get("weights_sha256")  # type: ignore[operator, union-attr]
    if known:
        return str(known)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return sha256_of(safetensors.torch.save(tensors, {"format": "pt"}))


def _check_writable(path: Path) -> None:
    """Say before a long export, not after it, that its file cannot be written; create nothing yet."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if path.is_dir():
        raise ZooError(f"cannot write {path}: it is a directory; name a file, such as {path / 'model.onnx'}")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ZooError(f"cannot write {path}: {parent} is not a directory that can be written to")
