"""What a file says: of its network, one typed model of its metadata, written and read here alone; and instruments, what
it tells beside its logits: spikes as they are, for a comparison, and counts of them."""

import copy
import itertools
import json
import math
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import TensorProto, helper
from pydantic import ConfigDict, Field, ValidationError
from torch.utils import _pytree as pytree

from zoo.checkpoint.weights import network_digest
from zoo.data import normalisation
from zoo.data.images import preparation
from zoo.errors import ZooError, quoted
from zoo.files import parse_json, sha256_of
from zoo.names import Slices
from zoo.neurons import LIF, SpikingNeuron
from zoo.schema import Count, Integer, Model, Name, Positive, Sha256, Tag, fits

PRODUCER = "snn-zoo"
SPIKES = "spikes"
"""A layer's are LAYER/spikes in a graph, their count spikes/LAYER: spikes/stages.0.0.lif1."""
PREFIX = f"{SPIKES}/"
STEP_LOGITS = "step_logits"
_TRAINING = ("epochs", "seed", "test_reads")
_TEXTS = {"architecture", "tag", "weights_sha256", "pixels", "license", "layout", "precision"}
"""Entries that are no JSON."""
_MEASURED = ("flat", "function")
_LARGEST = 2**28
"""Values of an image that is measured."""
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


Currents = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[int, Field(ge=0, le=255)], str], Field(strict=False)
]
"""Scale, zero point and the start of a sha256."""


class Preparation(Model):
    """How an image of any size becomes one of the network's, in timm's words for evaluation: with `center`, the shorter
    side is scaled to size / crop_pct and the centre cut out; `squash` scales both sides, `border` the longer one."""

    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
    crop_pct: Annotated[float, Field(ge=0.25, le=1)]
    crop_mode: Literal["center", "squash", "border"]


class About(Model):
    """The metadata_props of a file from `to_onnx`; all but names and texts are JSON."""

    model_config = ConfigDict(extra="ignore")

    architecture: Name
    tag: Tag
    timesteps: Positive
    num_classes: Positive
    neuron: dict[str, Any]
    """One neuron, or a map from layer to neuron where they differ."""
    mean: list[Annotated[float, Field(ge=-1e30, le=1e30)]]
    std: list[Annotated[float, Field(ge=1e-30, le=1e30)]]
    input_size: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    """Channels, height, width."""
    prepare: Preparation
    weights_sha256: Sha256
    encoding: Literal["direct", "latency", "rate", "frames"]
    pixels: str
    """What the input is, for people."""
    license: str
    layout: Literal["flat", "function", "step", "loop"]
    precision: Literal["fp32", "fp16", "int8", "int16"]
    spike_values: Annotated[dict[str, str], Field(min_length=1)]
    """From a neuron layer to its spikes: the value of that name in the graph, [T*B, ...]; or, where time is not in the
    batch, those with /0, /1 ... behind the name, one for each step, or /t, [B, ...] each."""
    spike_shapes: dict[str, list[Positive]]
    """From a neuron layer to the shape of its spikes, of one image at one step."""
    states: list[dict[str, Any]] | None = None
    """What a step graph has, and no other: input, output, layer, shape (null for the batch) and start (0) of each."""
    currents: dict[str, Currents] | None = None
    """What int8 has: from a convolution's weight to [scale, zero point] of its currents, and the start of the sha256 of
    its weights in eight bits."""
    epochs: Count | None = None
    """As the next two: if the checkpoint tells it."""
    seed: Integer | None = None
    test_reads: Count | None = None
    labels: list[str] | None = None
    """Names of the classes, if the checkpoint tells them."""

    slices: Slices | None = None
    """How recordings are cut into frames, of a network that takes them."""

    @property
    def cfg(self) -> dict[str, Any]:
        """The part of a pretrained_cfg by which images are prepared."""
        frames = {"timesteps": self.timesteps, "slices": self.slices} if self.slices else {}
        return {"input_size": self.input_size, **self.prepare.model_dump(), **frames}

    @property
    def input_shape(self) -> list[int]:
        """The shape of the input without the batch: an image, or T frames."""
        return [self.timesteps, *self.input_size] if self.encoding == "frames" else self.input_size


def write(proto: onnx.ModelProto, **entries: Any) -> None:
    """Adds entries to the metadata of a graph, those of no value left out; its own stay where both have one."""
    told = {key: value if key in _TEXTS else _json(value) for key, value in entries.items() if value is not None}
    helper.set_model_props(proto, told | texts(proto))


def texts(proto: onnx.ModelProto) -> dict[str, str]:
    """Returns the metadata of a graph as they are."""
    return {entry.key: entry.value for entry in proto.metadata_props}


def metadata(proto: onnx.ModelProto, key: str) -> Any:
    """Returns an entry of a graph's metadata, of the type of that field of `About`."""
    if (text := texts(proto).get(key)) is None:
        raise ZooError(f"the graph's metadata say no {key}: it is no file from `python -m export`, or was changed")
    return _value(key, text, "the graph's")


def is_ours(proto: onnx.ModelProto) -> bool:
    """Returns whether a graph says that it is a file from `to_onnx`."""
    return proto.producer_name == PRODUCER or "spike_values" in texts(proto)


def read_about(proto: onnx.ModelProto, path: Path) -> About:
    """Returns the metadata of a file that can be measured, each entry checked by itself and against the graph.

    Raises:
        ZooError: an entry is missing, malformed or does not fit the graph, or a file of this layout or encoding is not
            measured.
    """
    told = texts(proto)
    if missing := [key for key, field in About.model_fields.items() if field.is_required() and key not in told]:
        raise ZooError(
            f"{path} lacks the metadata of a file from `python -m export` ({', '.join(missing)}): it comes from "
            "elsewhere or was cut short; export it again"
        )
    about = About(**{key: _value(key, told[key], f"{path}:") for key in About.model_fields if key in told})
    if about.encoding == "rate":
        raise ZooError(f"{path} takes frames, of rate encoding: only files of images or event frames are measured")
    if about.layout not in _MEASURED:
        raise ZooError(
            f"{path} has the layout {about.layout}: only {' and '.join(_MEASURED)} are measured; export one of them"
        )
    channels = about.input_size[0]
    size, classes = _shape(proto.graph.input, "input")[1:], _shape(proto.graph.output, "logits")[1:]
    for key, fit, expected in (
        ("mean", len(about.mean) == channels, f"{channels} numbers, one per channel of input_size"),
        ("std", len(about.std) == channels, f"{channels} numbers, one per channel of input_size"),
        ("input_size", size == about.input_shape, f"{size} as in the graph"),
        ("input_size", math.prod(size) <= _LARGEST, "an image that memory holds"),
        ("labels", about.labels is None or len(about.labels) == about.num_classes, "a name for each class"),
        ("num_classes", classes == [about.num_classes], f"{classes} as in the graph"),
    ):
        if not fit:
            raise misfit(f"{path}:", key, told[key], expected)
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    if loops := [node.op_type for node in nodes if node.op_type in ("Loop", "Scan", "If")]:  # which may have no end
        raise ZooError(f"{path} has a {loops[0]}, and layout {about.layout} has none: it was changed, export it again")
    return about


def _value(key: str, text: str, whose: str) -> Any:
    """Returns the value of an entry, checked as its field says."""
    try:
        value = text if key in _TEXTS else parse_json(text, key)
        About.__pydantic_validator__.validate_assignment(About.model_construct(), key, value)
    except ZooError:
        raise misfit(whose, key, text, "JSON") from None
    except ValidationError as error:
        expected = error.errors(include_url=False)[0]["msg"].removeprefix("Input should be ")
        raise misfit(whose, key, text, expected) from None
    return value


def same_entry(text: str | None, expected: str) -> bool:
    """Returns whether two entries say the same, numbers but for the last digits."""
    try:
        (said, form), (known, other) = (pytree.tree_flatten(parse_json(str(entry), "")) for entry in (text, expected))
    except ZooError:
        return text == expected
    pairs = zip(said, known, strict=True) if form == other else [(0, 1)]
    return all(a == b or (type(a) is type(b) is float and bool(np.isclose(a, b, rtol=1e-6, atol=0))) for a, b in pairs)


def misfit(whose: str, key: str, value: Any, expected: str) -> ZooError:
    """Returns the error of an entry that is not as expected."""
    return ZooError(f"{whose} metadata {key} is {reprlib.repr(value)}, expected {expected}; export it again")


def _shape(infos: Any, name: str) -> list[int]:
    """Returns the shape of an input or output, 0 where it is dynamic; [] if there is none of that name."""
    return next(([d.dim_value for d in info.type.tensor_type.shape.dim] for info in infos if info.name == name), [])


def add_description(proto: onnx.ModelProto, model: Any, tag: str | None = None, **others: str) -> onnx.ModelProto:
    """Returns the graph itself, with metadata and a doc_string about its network; `others` are further entries."""
    layout = metadata(proto, "layout")
    entries = describe(model, tag, by_step=layout == "step") | texts(proto) | others
    helper.set_model_props(proto, entries)
    name = ".".join(filter(None, (entries["architecture"], entries["tag"])))
    shape = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    proto.doc_string = (
        f"{name}, a spiking network, {entries['timesteps']} time steps, layout {layout}. "
        f"Input: float32 {shape}, {entries['pixels']} (metadata: mean, std). "
        f"Output: logits [batch, {entries['num_classes']}], in the order of the metadata's labels. "
        f"License: {entries['license']}."
    )
    return proto


def describe(model: Any, tag: str | None = None, *, by_step: bool = False) -> dict[str, str]:
    """Returns what a file says about its network, whatever its graph, as metadata_props; `tag` names the training, the
    checkpoint's own by default; `by_step`: the file takes what the network sees in one time step."""
    cfg, sha256 = model.pretrained_cfg, weights_sha256(model)
    changed = model.loaded_digest is not None and sha256 != model.weights_sha256
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SpikingNeuron)}
    neurons = {name: describe_neuron(layer) for name, layer in layers.items()}
    first, *others = neurons.values()
    mean, std = normalisation(model)
    # Facts of the training, as far as the checkpoint tells them, for the measurements of this file.
    trained: dict[str, Any] = (not changed and model.training_args) or {}
    pixels = _PIXELS["latency, one step" if by_step and model.encoding == "latency" else model.encoding]
    labels = list(cfg.get("label_names") or ())
    values = {
        "architecture": cfg.get("architecture") or type(model).__name__,
        "tag": _tag(tag, "" if changed else cfg.get("tag")),
        "timesteps": model.timesteps,
        "num_classes": model.num_classes,
        "neuron": neurons if any(other != first for other in others) else first,
        "mean": list(mean),
        "std": list(std),
        "input_size": list(cfg["input_size"]),
        "prepare": {key: value for key, value in preparation(cfg).items() if key != "input_size"},
        "weights_sha256": sha256,
        **{key: trained[key] for key in _TRAINING if isinstance(trained.get(key), int)},
        "encoding": model.encoding,
        "pixels": pixels if cfg["input_size"][0] == _RGB else pixels.replace("RGB ", ""),
        "license": (not changed and cfg.get("license")) or "not stated",
        **({"slices": trained.get("slices", "number")} if model.encoding == "frames" else {}),
        **({"labels": labels} if len(labels) == model.num_classes else {}),
    }
    return {key: value if key in _TEXTS else _json(value) for key, value in values.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def describe_neuron(layer: SpikingNeuron) -> dict[str, Any]:
    """Returns a layer of neurons in JSON values: LIF and its kin by their numbers, others by class, keywords and
    parameters."""
    if isinstance(layer, LIF) and layer.of_numbers:
        reset = "soft" if layer.soft_reset else "hard"
        numbers = {"decay": torch.as_tensor(layer.decay).item(), "threshold": layer.threshold}
        return numbers | {"reset": reset, "decay_input": bool(layer.decay_input)}
    learned = {key: value.tolist() for key, value in layer.named_parameters() if value.numel() <= _LISTED}
    return {"kind": type(layer).__name__} | layer.spec_values() | learned


def _tag(asked: str | None, own: str | None) -> str:
    tag = (own if asked is None else asked) or ""
    if not fits(Tag, tag):
        raise ZooError(
            f"tag must be a tag of letters, digits, _ . and -, at most 100, or an empty string, not {quoted(tag)}"
        )
    return tag


def weights_sha256(model: Any) -> str:
    """Returns the sha256 of the checkpoint that the weights came from; if there is none, or they were changed since, as
    by fine-tuning, that of the file that they would be saved to."""
    known = model.weights_sha256 or model.pretrained_cfg.get("weights_sha256")
    if known and (model.loaded_digest is None or network_digest(model) == model.loaded_digest):
        return str(known)
    # Copies, as safetensors refuses tensors that share memory, such as a weight under two names.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    return sha256_of(safetensors.torch.save(tensors, {"format": "pt"}))


def add_spike_counts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a graph with one more output per neuron layer, "spikes/<layer>", float32 [batch, timesteps]: the number
    of its spikes, for one image in one time step; a step graph has one. A graph that has them stays as it is."""
    layers = metadata(proto, "spike_values")
    if PREFIX + next(iter(layers)) in (output.name for output in proto.graph.output):
        return proto
    graph = (counted := _with_spikes(proto)).graph
    graph.initializer.append(helper.make_tensor("spikes_axis", TensorProto.INT64, [1], [1]))
    steps, shape = _steps(counted), "spikes_shape"
    for layer, value in layers.items():
        out = PREFIX + layer
        for kind, inputs, output, attributes in (
            ("Flatten", [value], f"{layer}/flat", {"axis": 1}),
            ("ReduceSum", [f"{layer}/flat", "spikes_axis"], f"{layer}/sum", {"keepdims": 0}),
            ("Reshape", [f"{layer}/sum", shape], f"{layer}/steps", {}),
            ("Transpose", [f"{layer}/steps"], out, {"perm": [1, 0]}),
        ):
            graph.node.append(helper.make_node(kind, inputs, [output], f"{out}/{kind}", **attributes))
        graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, ["batch", steps]))
    return counted


def add_step_logits(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a graph with the output "step_logits", those of every time step, float32 [batch, timesteps, classes].

    Raises:
        ZooError: a step graph, whose logits are those of one step already, or a network whose last operation is not the
            mean over time.
    """
    told = copy.deepcopy(proto)
    graph = told.graph
    found = {name for node in graph.node for name in node.output}
    steps = list(itertools.takewhile(found.__contains__, (f"{t}/logits" for t in itertools.count())))
    loop = next((node for node in graph.node if node.op_type == "Loop"), None)
    last = next((node for node in graph.node if "logits" in node.output), None)
    if metadata(proto, "layout") == "step":
        raise ZooError("the logits of a step graph are those of one time step already: no step_logits")
    if steps:
        graph.initializer.append(helper.make_tensor("step_axis", TensorProto.INT64, [1], [1]))
        for name in steps:
            graph.node.append(helper.make_node("Unsqueeze", [name, "step_axis"], [f"{name}/step"]))
        graph.node.append(helper.make_node("Concat", [f"{name}/step" for name in steps], [STEP_LOGITS], axis=1))
    else:
        by_step = None
        if loop is not None:
            by_step = _scanned(loop, "t/logits", "logits/steps")
        elif last is not None and last.op_type == "ReduceMean":
            by_step = last.input[0]
        if by_step is None:
            raise ZooError("no step_logits: the last operation of this network is not the mean over time")
        graph.node.append(helper.make_node("Transpose", [by_step], [STEP_LOGITS], perm=[1, 0, 2]))
    classes = next(o for o in graph.output if o.name == "logits").type.tensor_type.shape.dim[1].dim_value
    count: Any = len(steps) or "time"
    graph.output.append(helper.make_tensor_value_info(STEP_LOGITS, TensorProto.FLOAT, ["batch", count, classes]))
    return told


def add_spike_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a graph whose further outputs are the spikes [T*B, ...] of every layer, named as in `spike_values`."""
    exposed = _with_spikes(proto)
    for value in metadata(proto, "spike_values").values():
        exposed.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    return exposed


def _steps(proto: onnx.ModelProto) -> int | str:
    """Returns how many time steps a graph has, and gives it the value "spikes_shape" for Reshape: [steps, -1]."""
    layout, graph = metadata(proto, "layout"), proto.graph
    if layout == "loop":
        for name, value in (("one", 1), ("rest", -1)):
            graph.initializer.append(helper.make_tensor(f"spikes_shape/{name}", TensorProto.INT64, [1], [value]))
        graph.node.append(helper.make_node("Reshape", ["timesteps", "spikes_shape/one"], ["spikes_shape/steps"]))
        shape = ["spikes_shape/steps", "spikes_shape/rest"]
        graph.node.append(helper.make_node("Concat", shape, ["spikes_shape"], axis=0))
        return "time"
    steps = 1 if layout == "step" else int(metadata(proto, "timesteps"))
    graph.initializer.append(helper.make_tensor("spikes_shape", TensorProto.INT64, [2], [steps, -1]))
    return steps


def _with_spikes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy in which the spikes of each layer are one value, [T*B, ...]."""
    copied = copy.deepcopy(proto)
    graph = copied.graph
    found = {name for node in graph.node for name in node.output}
    loop = next((node for node in graph.node if node.op_type == "Loop"), None)
    for value in metadata(proto, "spike_values").values():
        if value in found:
            continue
        steps = list(itertools.takewhile(found.__contains__, (f"{value}/{t}" for t in itertools.count())))
        if f"{value}/byte" in found:
            graph.node.append(helper.make_node("Cast", [f"{value}/byte"], [value], value, to=TensorProto.FLOAT))
        elif f"{value}/bytes" in found:  # channels last
            graph.node.append(helper.make_node("Cast", [f"{value}/bytes"], [f"{value}/last"], to=TensorProto.FLOAT))
            graph.node.append(helper.make_node("Transpose", [f"{value}/last"], [value], value, perm=[0, 3, 1, 2]))
        elif steps:
            graph.node.append(helper.make_node("Concat", steps, [value], value, axis=0))
        elif f"{value}/t" in found:
            graph.node.append(helper.make_node("Identity", [f"{value}/t"], [value], value))
        elif loop is not None:
            stacked = _scanned(loop, f"{value}/t", f"{value}/stacked")
            if not any(tensor.name == "folded" for tensor in graph.initializer):
                graph.initializer.append(helper.make_tensor("folded", TensorProto.INT64, [1], [-1]))
            graph.node.append(helper.make_node("Shape", [stacked], [f"{value}/map"], start=2))
            graph.node.append(helper.make_node("Concat", ["folded", f"{value}/map"], [f"{value}/shape"], axis=0))
            graph.node.append(helper.make_node("Reshape", [stacked, f"{value}/shape"], [value], value))
    return copied


def _scanned(loop: onnx.NodeProto, inner: str, name: str) -> str:
    """Gives a loop one more output, `name` [T, ...]: its value `inner` of every step."""
    body: onnx.GraphProto = next(a.g for a in loop.attribute if a.name == "body")
    body.node.append(helper.make_node("Identity", [inner], [f"{inner}/out"]))
    body.output.append(helper.make_tensor_value_info(f"{inner}/out", TensorProto.FLOAT, None))
    loop.output.append(name)
    return name
