"""Export: a trained network to one verified .onnx file that says what it is."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.files import atomic_write, check_writable, sha256_of

from .commands import check_layout
from .file import PRODUCER, add_description, add_spike_counts, add_step_logits
from .images import network_inputs
from .int8 import calibrate, int8_graph
from .network import build_graph, exportable, inference_copy, take_apart
from .verify import run_gate


def to_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    layout: str = "flat",
    precision: str = "fp32",
    calibration: NDArray[Any] | Tensor | None = None,
    spike_counts: bool = False,
    step_logits: bool = False,
    tag: str | None = None,
    verify: bool | Literal["quick"] = True,
    images: NDArray[Any] | Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes the graph of a network: "input" [batch, C, H, W] to "logits" [batch, classes].

    The file appears under its name only once it is whole and verified; the network stays as it is.

    Args:
        model: a network of the zoo, also inside torch.compile's, DataParallel's ... module.
        path: the .onnx file.
        layout: "flat", "function", "step" or "loop"; see `export.graph`.
        precision: "fp32"; "fp16": weights of convolutions over spikes in half precision, see `export.network`;
            "int8": these over bytes, see `export.int8`; or "int16": these skip zeros, see `export.event`.
        calibration: training images that int8 takes its scales from, as `images`.
        spike_counts: one more output per neuron layer, "spikes/<layer>", float32 [batch, timesteps].
        step_logits: the output "step_logits", float32 [batch, timesteps, classes].
        tag: names the training; the checkpoint's own by default.
        verify: run the gate of `export.verify`; "quick" runs the graph at two of five optimisation levels, and on 32
            images at most.
        images: for that gate: uint8 pixels [N, C, H, W], normalised as the network's `pretrained_cfg` says, or float32
            ones that are normalised; frames [N, T, C, H, W] where the network takes them. Random ones without.
        metadata: further entries of the file's metadata_props.

    Returns:
        JSON values: file, bytes, sha256, nodes, seconds (of the export alone), verify_seconds, layout, metadata,
        verification (None if it was not run).

    Raises:
        ZooError: a network that cannot be exported, a failed verification, a path that cannot be written.
    """
    path = Path(path)
    check_writable(path)
    check_layout(layout, precision)
    if (precision == "int8") != (calibration is not None):
        raise ZooError("int8 takes its scales from training images: give calibration images with it, and only with it")
    model = exportable(model)
    images = None if images is None else network_inputs(model, images)
    training = None if calibration is None else network_inputs(model, calibration)
    network, others = inference_copy(model), dict(metadata or {})
    begin = time.perf_counter()
    with tqdm(total=1, desc="tracing", leave=False, disable=None) as bar:
        if training is None:
            proto = build_graph(network, layout, precision)
        else:
            parts = take_apart(network, all_steps=True)
            rounded = calibrate(parts, training)
            proto = int8_graph(parts, rounded)
            others = {"calibration_images": json.dumps(len(training))} | others
        bar.update()
    proto.producer_name, proto.producer_version = PRODUCER, zoo.__version__
    proto = add_description(proto, model, tag, **others)
    if spike_counts:
        proto = add_spike_counts(proto)
    if step_logits:
        proto = add_step_logits(proto)
    data = proto.SerializeToString(deterministic=True)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    verification = run_gate(network, proto, images, quick=verify == "quick") if verify else None
    verify_seconds = round(time.perf_counter() - begin, 2)
    atomic_write(path, data)
    return {
        "file": path.name, "bytes": len(data), "sha256": sha256_of(data), "nodes": len(proto.graph.node),
        "seconds": round(seconds, 2), "verify_seconds": verify_seconds, "layout": layout,
        "metadata": {p.key: p.value for p in proto.metadata_props}, "verification": verification,
    }  # fmt: skip
