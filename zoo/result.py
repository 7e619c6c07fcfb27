"""One measurement as a JSON object: what each kind of result holds, in typed models, and how results are made.

A result of kind "accuracy" is a network in PyTorch on a data set, one of kind "onnx" its graph in ONNX Runtime, one of
kind "measurement" both at once. What is unknown is null. leaderboard/README.md tells what the numbers mean.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from .data import DataSet
from .errors import ZooError, one_of, quoted
from .files import read_json, sha256_of
from .network import SpikingNetwork
from .plugins import Plugins
from .provenance import provenance
from .scaling.spec import resolve_scaling
from .schema import Count, Integer, Model, Name, Number, Object, Percent, Positive, Sha256, Share, Tag, Text
from .schema import parse as parse_model
from .specs import MOST_TIMESTEPS


def _named(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("name"), str):
        raise ValueError('expected an object with a "name"')
    return value


Commit = Annotated[str, Field(pattern="^([0-9a-f]{40}|[0-9a-f]{64})(-dirty)?$")]
"""A commit of this repository, with its mark if files were changed."""
Date = Annotated[str, AfterValidator(lambda text: datetime.fromisoformat(text) and text)]
"""A date and time in ISO 8601."""
Precision = Literal["fp32", "bf16", "fp16"]


class Machine(Model):
    """What something was measured on."""

    system: Text | None
    cpu: Text | None
    cores: Positive | None
    threads: Positive
    """Those that PyTorch computes with."""
    gpu: Text | None
    """The GPU that was used, if any."""
    instruction_set: Text | None = None
    """The best that PyTorch and the event-driven kernel use, as AVX2 or AVX512, and VNNI for products of bytes."""


class Ancestor(Model):
    """A checkpoint that a training goes back to, with what its own training took."""

    name: Text
    weights_sha256: Sha256
    epochs: Count | None
    train_seconds: Number | None
    recipe_sha256: Sha256 | None


class Resumed(Model):
    """With what a training went on where that was not what it began with."""

    commit: Commit | None
    versions: dict[Text, Text]
    machine: Machine


class Reference(Model):
    """A number that others published of this very network."""

    top1: Percent | None
    spikes_per_image: Number | None
    citation: Text


class Operations(Model):
    """Operations an image, as NeuroBench names them."""

    Effective_ACs: Number
    Effective_MACs: Number
    Dense: Number


class Latency(Model):
    """Milliseconds that one batch takes, over timed runs."""

    batch: Positive
    threads: Positive
    p50_ms: Number
    p95_ms: Number
    runs: Positive
    p90_ms: Number | None = None
    p99_ms: Number | None = None
    images_per_second: Number | None = None
    ms: list[Number] | None = None
    """Every run in order."""
    peak_bytes: Count | None = None
    """The most memory of the process."""


class Operator(Model):
    """What one kind of operator takes in a run of a graph."""

    operator: Text
    nodes: Positive
    ms: Number
    share: Share


class _Result(Model):
    """What every result says: which weights, and how to get its numbers again."""

    schema_: int = Field(alias="schema", ge=1, le=1)
    model: Name
    tag: Tag
    weights_sha256: Sha256
    command: Text
    commit: Commit | None
    date: Date
    versions: dict[Text, Text]
    """Python and packages."""
    machine: Machine
    plugins: Plugins = None
    partial: bool = False
    """Whether the images are a part of the test set, which the leaderboard does not take."""
    note: Text | Literal[""] = ""


class _Spikes(_Result):
    spikes_per_image: Number | None
    """All spikes of all layers of neurons, summed over all time steps, mean over images."""
    spikes_per_layer: dict[Text, Number] | None
    spikes_per_step: list[Number] | None
    """The same count, by layer and by time step."""
    timesteps: Annotated[int, Field(ge=1, le=MOST_TIMESTEPS)]
    epochs: Count | None
    """Passes of the training alone, without what it started from."""
    seed: Integer | None
    test_reads: Count | None
    """How many runs of the comparison that the run belongs to read the test set."""

    @model_validator(mode="after")
    def _has_all_steps(self) -> "_Spikes":
        if self.spikes_per_step is not None and len(self.spikes_per_step) != self.timesteps:
            raise ValueError(f"expected {self.timesteps} numbers in spikes_per_step, one for each of the timesteps")
        return self


class Costs(Model):
    """What `zoo.metrics.evaluate` counts beside accuracy and spikes; not every result has it."""

    firing_rates: dict[Text, Share] | None = None
    activation_sparsity: Share | None = None
    membrane_updates: Number | None = None
    Effective_ACs: Number | None = None
    Effective_MACs: Number | None = None
    Dense: Number | None = None
    products: Operations | None = None
    stem: Operations | None = None
    footprint_bytes: Count | None = None
    connection_sparsity: Share | None = None
    energy_uj: Number | None = None


class Accuracy(_Spikes, Costs):
    """A network in PyTorch on images of a data set."""

    kind: Literal["accuracy"]
    dataset: Name
    split: Literal["test", "validation"]
    images: Positive
    """Images that the measurement is of."""
    top1: Percent
    top5: Percent | None
    """Percent of the images."""
    train_images: Positive | None
    """Images that the training used."""
    params: Count
    scaling: Annotated[Object, AfterValidator(_named)] | None
    """The rule of gradient scaling."""
    precision: Precision
    """What the measurement computed in."""
    train_precision: Precision | None = None
    """What the training computed in."""
    train_seconds: Number | None
    comparison: Text
    """The name of what the run was trained to be compared in."""
    data_sha256: Sha256 | None
    recipe_sha256: Sha256 | None = None
    """The hash by which `recipes.lineage` knows the recipe."""
    started_from: list[Ancestor] = Field(default_factory=list)
    """The checkpoints that the training goes back to, nearest first."""
    resumed_with: list[Resumed] = Field(default_factory=list)
    reference: Reference | None = None


class Training(Accuracy):
    """The result of a training, which knows what a later validation may not."""

    spikes_per_image: Number
    train_images: Positive
    epochs: Count
    seed: Integer
    train_seconds: Number


class Arm(Training):
    """The result of a training that is an arm of an ablation, which the leaderboard would take for a seed of a row."""

    plan: Text
    arm: Text
    train_loss: Number
    recipe: Object


class Onnx(_Spikes):
    """A graph in ONNX Runtime, on images of a data set or timed alone."""

    kind: Literal["onnx"]
    dataset: Name | None
    split: Literal["test"] | None
    images: Positive | None
    top1: Percent | None
    precision: Literal["fp32", "fp16", "int8", "int16"]
    layout: Literal["flat", "function"]
    latency: list[Latency]
    provider: Text
    optimization: Text
    onnx_sha256: Sha256
    onnx_bytes: Positive
    profile: list[Operator] = Field(default_factory=list)


class Measurement(_Result):
    """A checkpoint as `python -m leaderboard measure` measures it: in PyTorch and as graphs, on the same images."""

    kind: Literal["measurement"]
    dataset: Name
    images: Positive
    recipe: Object | None
    recipe_sha256: Sha256 | None
    started_from: list[Ancestor]
    spikes_differ: dict[Text, Count]
    """Spikes of all images that a graph counts otherwise than PyTorch, net of each layer (the fewest flips), by form:
    precision and layout."""
    parts: list[Annotated[Accuracy | Onnx, Field(discriminator="kind")]] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_of_one_checkpoint(self) -> "Measurement":
        forms = []
        for part in self.parts:
            forms.append(f"{part.precision} {part.layout}" if isinstance(part, Onnx) else "PyTorch")
            for key in ("model", "tag", "dataset", "weights_sha256", "images"):
                if (value := getattr(part, key)) != getattr(self, key):
                    raise ValueError(f"{key} of part {len(forms)} is {quoted(value)}, not that of the whole")
            if part.timesteps != self.parts[0].timesteps:
                raise ValueError(f"timesteps of part {len(forms)} is {part.timesteps}, not that of part 1")
        if len(set(forms)) < len(forms):
            raise ValueError(f"two parts are of the same form: {', '.join(forms)}")
        return self


KINDS: Mapping[str, type[Model]] = {"accuracy": Accuracy, "onnx": Onnx, "measurement": Measurement}
"""The kinds of a result that the leaderboard takes."""


def read(path: str | os.PathLike[str], kinds: Mapping[str, type[Model]] = KINDS) -> dict[str, Any]:
    """Reads a result file and checks it; ZooError for no such file, no JSON, or see `check`."""
    return check(read_json(path), str(path), kinds)


def check(result: Any, origin: str, kinds: Mapping[str, type[Model]] = KINDS) -> dict[str, Any]:
    """Checks one result, the content of the JSON file `origin`, against the model of its kind, and returns it as it is.

    Raises:
        ZooError: a key is missing, unknown, or holds a bad value; one line that names file, key and value.
    """
    if not isinstance(result, dict):
        raise ZooError(f"{origin}: expected one JSON object, not {quoted(result)}")
    kind = result.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise one_of(f"kind of result in {origin}:", kind, list(kinds))
    parse_model(kinds[kind], result, origin)
    return result


def when(result: Mapping[str, Any]) -> datetime:
    """Returns the date of a result as a time that can be compared: without a zone it is UTC."""
    date = datetime.fromisoformat(result["date"])
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def accuracy_result(
    model: SpikingNetwork,
    scores: dict[str, Any],
    data: DataSet,
    *,
    tag: str,
    split: str,
    weights_sha256: str | None,
    comparison: str | None,
    epochs: int | None,
    seed: int | None,
    test_reads: int | None,
    train_images: int | None = None,
    train_seconds: float | None = None,
    origin: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the measurement of a network in float32, kind "accuracy".

    Args:
        scores: see `zoo.metrics.evaluate`.
        data: what `split` ("test" or "validation") is of.
        comparison: the name of the comparison that the training was part of, `test_reads` of whose runs read the test
            set; architecture.tag without one.
        epochs, seed, train_images, train_seconds: of the training.
        origin: see `zoo.provenance.provenance`; that of this moment, where the network is, by default.
    """
    architecture = model.pretrained_cfg["architecture"]
    rule = resolve_scaling(model.model_args["scaling"])
    return {
        "schema": 1, "kind": "accuracy", "model": architecture, "tag": tag, "dataset": data.name, "split": split,
        "train_images": train_images, **{key: value for key, value in scores.items() if key != "loss"},
        "timesteps": model.timesteps, "params": sum(p.numel() for p in model.parameters()), "epochs": epochs,
        "seed": seed, "scaling": rule and rule._asdict(), "precision": "fp32", "train_seconds": train_seconds,
        "comparison": comparison or ".".join(filter(None, (architecture, tag))), "test_reads": test_reads,
        **(origin or provenance(gpu=next(model.parameters()).is_cuda)),
        "data_sha256": data.sha256, "weights_sha256": weights_sha256,
    }  # fmt: skip


def onnx_result(
    graph: bytes,
    about: dict[str, Any],
    scores: dict[str, Any],
    latency: list[dict[str, Any]],
    *,
    dataset: str | None,
    provider: str,
    optimization: str,
    profile: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns the measurement of a graph in ONNX Runtime, kind "onnx".

    Args:
        graph: the .onnx file.
        about: its metadata: architecture, tag, timesteps, precision, layout, weights_sha256; of the training epochs,
            seed and test_reads.
        scores: images, top1 in percent, spikes_per_image, spikes_per_layer, spikes_per_step; None without images.
        latency, profile: as `Latency` and `Operator` have them.
        dataset: whose test images these were.
    """
    return {
        "schema": 1, "kind": "onnx", "model": about["architecture"], "tag": about["tag"], "dataset": dataset,
        "split": None if dataset is None or scores["images"] is None else "test", **scores,
        "timesteps": about["timesteps"], "latency": latency, "provider": provider, "optimization": optimization,
        "epochs": about["epochs"], "seed": about["seed"], "test_reads": about["test_reads"],
        "weights_sha256": about["weights_sha256"], "onnx_sha256": sha256_of(graph), "onnx_bytes": len(graph),
        "precision": about["precision"], "layout": about["layout"],
        **({} if profile is None else {"profile": profile}),
        **provenance(gpu=provider.startswith(("CUDA", "Tensorrt"))),
    }  # fmt: skip
