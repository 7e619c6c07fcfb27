"""Measures files in ONNX Runtime: accuracy and spikes of ours, latency and memory of anybody's, side by side."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor
from tqdm import tqdm

from zoo.data.dataset import warn_of_pixels
from zoo.data.folder import check_class_names
from zoo.errors import ZooError, shown
from zoo.files import sha256_of
from zoo.provenance import provenance
from zoo.result import onnx_result

from .baselines import baseline
from .commands import Settings, settings
from .file import (
    PREFIX,
    About,
    add_spike_counts,
    add_spike_outputs,
    is_ours,
    misfit,
    read_about,
    weights_sha256,
)
from .images import Loaded, as_array, check_images, check_labels, normalise
from .run import CPU, LARGEST_VALUE, check_session, create_session, device_of, read_model, run_session
from .source import network_of
from .timing import Input, Subject, TimedGraph, operators, peak_bytes, time_all

_CHUNK = 64
_MOST_AXES = 32
_FLOATS = ("float32", "float16", "float64")


def benchmark(
    path: str | os.PathLike[str],
    images: NDArray[Any] | Tensor | None = None,
    labels: NDArray[Any] | Tensor | None = None,
    *,
    dataset: str | None = None,
    classes: Sequence[str] | None = None,
    batch_sizes: int | Sequence[int] = (1,),
    threads: int | Sequence[int] = (1,),
    runs: int = 50,
    rounds: int = 5,
    memory: bool = False,
    profile: bool = False,
    provider: str | None = None,
    optimization: str = "all",
) -> dict[str, Any]:
    """Measures a graph that `to_onnx` wrote.

    Args:
        path: the .onnx file.
        images: uint8 pixels [N, C, H, W], normalised as the file's metadata says, or float32 ones that are normalised.
            Without images there is no accuracy and no spike count, and latency is measured on noise.
        labels: classes [N].
        dataset: the name of the data set whose test images these are.
        classes: what that data set calls its classes; the network must have as many and, if the file says what it
            calls them, call them so.
        batch_sizes, threads, runs, rounds, memory, profile: see `export.commands.Settings`.
        provider: CPUExecutionProvider by default; it runs there or not at all.
        optimization: ONNX Runtime's graph optimisation: disable, basic, extended, layout or all.

    Returns:
        A measurement of kind "onnx", JSON values: model, tag, dataset, split ("test" of a data set), images, top1
        (percent), spikes_per_image, spikes_per_layer, spikes_per_step, timesteps, latency (ms), provider, optimization,
        epochs, seed and test_reads of the training, checksums, precision, layout, provenance. What is not known is
        None.

    Raises:
        ZooError: a file that is broken or not from `to_onnx`, images or labels that do not fit, a provider that does
            not work here.
    """
    how = {"provider": provider or CPU, "optimization": optimization}
    check_session(**how)
    sizes, counts = ([n] if isinstance(n, int) else list(n) for n in (batch_sizes, threads))
    asked = settings(batch_sizes=sizes, threads=counts, runs=runs, rounds=rounds, memory=memory, profile=profile)
    file = read_file(path)
    file.ours()
    if images is None and (labels is not None or dataset is not None):
        raise ZooError("labels, or the name of a data set, say nothing without its images: give these, too")
    loaded = None
    if images is not None:
        loaded = Loaded(as_array(images), None if labels is None else as_array(labels), dataset, classes)
    return measure([file], loaded, asked, provider=how["provider"], optimization=optimization)


class File(NamedTuple):
    """An ONNX file; `about` is None if somebody else made it."""

    path: Path
    data: bytes
    proto: onnx.ModelProto
    about: About | None

    def ours(self) -> About:
        """Returns the metadata of a file of ours."""
        return self.about or read_about(self.proto, self.path)  # which says what it lacks


def read_file(path: str | os.PathLike[str]) -> File:
    """Reads any ONNX file."""
    data, proto = read_model(path)
    if not is_ours(proto):
        return File(Path(path), data, proto, None)
    about = read_about(proto, Path(path))
    _check_spikes(proto, about, Path(path))
    return File(Path(path), data, proto, about)


def _check_spikes(proto: onnx.ModelProto, about: About, path: Path) -> None:
    """Raises ZooError unless a graph, run on one image, has the spikes of zeros and ones that its metadata tell of."""
    exposed = add_spike_outputs(proto)
    values = {output for node in exposed.graph.node for output in node.output}
    if lost := [value for value in about.spike_values.values() if value not in values]:
        raise misfit(f"{path}:", "spike_values", lost[0], "a value in the graph")
    session = create_session(exposed.SerializeToString(), threads=1)
    image = np.zeros((1, *about.input_shape), np.float32)
    for array in run_session(session, list(about.spike_values.values()), image):  # [T*B, ...] at B = 1
        if array.shape[:1] != (about.timesteps,):
            raise misfit(f"{path}:", "timesteps", about.timesteps, f"{array.shape[:1]} as in the graph")
        if not np.isin(array, (0, 1)).all():
            raise ZooError(f"{path}: what it calls spikes are not zeros and ones; export it again")


def measure(
    files: Sequence[File],
    images: Loaded | None,
    asked: Settings,
    *,
    against: Sequence[str] = (),
    network: str | None = None,
    input_shape: Sequence[int] | None = None,
    provider: str,
    optimization: str,
) -> dict[str, Any]:
    """Measures one file, or several and baselines in turns.

    Args:
        files: the first one is what ratios are to.
        images: for accuracy and spikes of files of ours, and to time them on; noise without.
        asked: settings and runs.
        against: names of baselines, made of the network of the first file; see `export.baselines`.
        network: the checkpoint of the first file, if its metadata do not lead to it.
        input_shape: of one entry of the batch, for files of others.
        provider, optimization: see `benchmark`.

    Returns:
        Of one file of ours, a record of kind "onnx", see `benchmark`. Of others JSON values: schema, kind
        ("side_by_side"), subjects [{name, file, sha256, bytes, precision, layout, weights_sha256, images, top1,
        spikes_per_image, latency, profile}], dataset, provider, optimization, rounds, provenance. What is not known is
        None.
    """
    how = {"provider": provider, "optimization": optimization}
    first, dataset = files[0], images and images.dataset
    if against and first.about is None:
        raise ZooError(f"no baselines: {first.path} is not from `python -m export`, its network is not known")
    subjects: list[Any] = [
        _timed_graph(file, name, images, asked, input_shape, how)
        for name, file in zip(_names(files), files, strict=True)
    ]
    told = [_entry(subject, file) for subject, file in zip(subjects, files, strict=True)]
    if against:
        model = network_of(first.path, first.proto, first.ours(), network)
        if "event" in against and weights_sha256(model) != first.ours().weights_sha256:
            raise ZooError("how long `event` takes is a matter of spikes, so of weights: name those of the first file "
                           "with --network")  # fmt: skip
        sample = subjects[0].images  # zeros are skipped in what images give
        made: list[Any] = [baseline(name, model, **how) for name in dict.fromkeys(against)]
        made = [subject._replace(images=sample) for subject in made]
        subjects += made
        told += [_entry(subject) | {"weights_sha256": weights_sha256(model)} for subject in made]
    scores = [score(file, images, **how) if file.about else {} for file in files]
    latency = time_all(subjects, asked)
    if asked.memory:
        for rows, peaks in zip(latency, peak_bytes(subjects, asked.pairs), strict=True):
            for row, peak in zip(rows, peaks, strict=True):
                row["peak_bytes"] = peak
    profiles: list[list[dict[str, Any]] | None] = []
    for subject in subjects:
        profiles.append(operators(subject, asked) if asked.profile and isinstance(subject, TimedGraph) else None)
    if len(subjects) == 1 and first.about:
        about = first.about.model_dump()
        return onnx_result(first.data, about, scores[0], latency[0], dataset=dataset, profile=profiles[0], **how)
    for entry, found in zip(told, scores, strict=False):
        entry |= found
    return {
        "schema": 1, "kind": "side_by_side",
        "subjects": [
            entry | {"latency": rows, "profile": profile}
            for entry, rows, profile in zip(told, latency, profiles, strict=True)
        ],
        "dataset": dataset, **how, "rounds": min(asked.rounds, asked.runs),
        **provenance(gpu=device_of(provider) == "cuda"),
    }  # fmt: skip


def _names(files: Sequence[File]) -> list[str]:
    """Returns names of files, or their paths where two have the same name."""
    names = [file.path.name for file in files]
    unique = [name if names.count(name) == 1 else str(file.path) for name, file in zip(names, files, strict=True)]
    if twice := [name for name in unique if unique.count(name) > 1]:
        raise ZooError(f"{twice[0]} is named twice: once is enough")
    return unique


def _entry(subject: Subject, file: File | None = None) -> dict[str, Any]:
    """Returns what is known of anything that is timed; None what is not."""
    unknown = (
        "file", "sha256", "model", "tag", "weights_sha256", "timesteps", "images", "top1", "spikes_per_image",
        "spikes_per_step",
    )  # fmt: skip
    size, precision = None, "fp32"
    if isinstance(subject, TimedGraph):
        size, precision = len(subject.data), subject.precision
    entry = {"name": subject.name, **dict.fromkeys(unknown), "bytes": size, "precision": precision, "layout": None}
    if file is not None:
        entry |= {"file": file.path.name, "sha256": sha256_of(file.data), "precision": None}
        if file.about is not None:
            known = {"tag", "weights_sha256", "timesteps", "precision", "layout"}
            entry |= {"model": file.about.architecture} | file.about.model_dump(include=known)
    return entry


def _timed_graph(
    file: File, name: str, images: Loaded | None, asked: Settings, shape: Sequence[int] | None, how: dict[str, Any]
) -> TimedGraph:
    """Returns the graph in a file, to be timed: on images, if it is ours and there are any."""
    if (about := file.about) is None:
        if images is not None:
            raise ZooError(
                f"{file.path} is not from `python -m export`: its accuracy cannot be measured, leave out --data"
            )
        outputs = [output.name for output in file.proto.graph.output]
        return TimedGraph(name, file.data, find_inputs(file, asked.batch_sizes, shape), outputs, **how)
    sample = None
    if images is not None:
        check_fit(file, images)
        sample = normalise(images.images[:_CHUNK], about.mean, about.std)
    inputs = [Input("input", "float32", (0, *about.input_shape))]
    return TimedGraph(name, file.data, inputs, ["logits"], images=sample, **how)


def check_fit(file: File, images: Loaded) -> None:
    """Raises ZooError unless images, labels and classes fit the network in a file of ours."""
    about = file.ours()
    if images.classes is not None:
        data_set = images.dataset or "the data set"
        if len(images.classes) != about.num_classes:
            raise ZooError(f"model has {about.num_classes} classes, {data_set} has {len(images.classes)}")
        check_class_names(file.path.name, about.labels or images.classes, data_set, images.classes)
    check_images(images.images, about.input_shape)
    if images.images.dtype.kind == "f":
        warn_of_pixels(images.images, about.mean)
    if images.labels is not None:
        check_labels(images.labels, len(images.images), about.num_classes)


def find_inputs(file: File, batches: Sequence[int], shape: Sequence[int] | None = None) -> list[Input]:
    """Finds the inputs of anybody's graph, those of floats in front, of which the first is the image.

    A dynamic axis is the batch if it is the first, and 1 if it is another. `batches` are the sizes that it will be run
    with, `shape` that of one image.
    """
    stored = {tensor.name for tensor in file.proto.graph.initializer}
    found = [(value, _dtype(value, file.path)) for value in file.proto.graph.input if value.name not in stored]
    found.sort(key=lambda item: item[1] not in _FLOATS)
    if not found or found[0][1] not in _FLOATS:
        raise ZooError(f"{file.path} has no input of floating-point numbers: it cannot be measured here")
    inputs: list[Input] = []
    for value, dtype in found:
        known, name = value.type.tensor_type.HasField("shape"), shown(value.name)
        sizes = tuple(max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim)
        if not inputs and shape is not None:
            fits = len(sizes) == len(shape) + 1 and all(a in (0, b) for a, b in zip(sizes[1:], shape, strict=True))
            if min(shape) < 1 or (known and not fits):
                there = [size or "?" for size in sizes[1:]]
                raise ZooError(f"{file.path}: the input {name} takes {there} for each image, not {list(shape)}")
            sizes = ((sizes or (0,))[0], *shape)
        elif not inputs and not known:
            raise ZooError(f"{file.path} does not say the shape of its input {name}: give --input-shape C H W")
        sizes = (*sizes[:1], *(size or 1 for size in sizes[1:]))
        if math.prod(sizes[1:]) * max(batches) > LARGEST_VALUE or len(sizes) > _MOST_AXES:
            raise ZooError(f"{file.path}: the input {name} {list(sizes)} is too large to be measured")
        inputs.append(Input(value.name, dtype, sizes))
    if (fixed := inputs[0].shape[:1]) and fixed[0] and set(batches) != {fixed[0]}:
        raise ZooError(f"{file.path} takes {fixed[0]} images at once, no other number: --batch {fixed[0]}")
    return inputs


def _dtype(value: onnx.ValueInfoProto, path: Path) -> str:
    """Returns NumPy's name of the numbers of an input."""
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    except KeyError:  # no tensor at all
        dtype = np.dtype(object)
    if dtype.kind not in "fiub":  # strings, say
        raise ZooError(f"{path}: the input {shown(value.name)} is no tensor of plain numbers")
    return dtype.name


def score(file: File, images: Loaded | None, **how: Any) -> dict[str, Any]:
    """Measures accuracy and mean spikes of a file of ours over all images; None without any."""
    about = file.ours()
    if images is None:
        return dict.fromkeys(("images", "top1", "spikes_per_image", "spikes_per_layer", "spikes_per_step"))
    counting = add_spike_counts(file.proto)
    if counting is file.proto:
        _check_counters(file.proto, about, normalise(images.images[:1], about.mean, about.std))
    session = create_session(counting.SerializeToString(), **how)
    layers = list(about.spike_values)
    counts, correct = np.zeros((len(layers), about.timesteps)), 0
    pixels, labels = images.images, images.labels
    with tqdm(total=len(pixels), desc="spikes", unit="img", leave=False, disable=None) as bar:
        for i in range(0, len(pixels), _CHUNK):
            chunk = normalise(pixels[i : i + _CHUNK], about.mean, about.std)
            logits, *spikes = run_session(session, ["logits", *(PREFIX + layer for layer in layers)], chunk)
            if logits.shape != (len(chunk), about.num_classes) or not np.isfinite(logits).all():
                raise ZooError(
                    f"the model gives no finite logits for each of {len(chunk)} images: nothing was measured"
                )
            for n, counted in zip(counts, spikes, strict=True):
                whole = np.isfinite(counted) & (counted >= 0) & (counted == np.floor(counted))
                if counted.shape != (len(chunk), about.timesteps) or not whole.all():
                    raise ZooError("the model counts spikes that are no whole numbers from 0: nothing was measured")
                n += counted.sum(0, dtype=np.float64)
            if labels is not None:
                correct += int((logits.argmax(1) == labels[i : i + _CHUNK]).sum())
            bar.update(len(chunk))
    if not counts.any():
        raise ZooError("no layer of the model ever spikes on these images: nothing was measured")
    means = counts / len(pixels)
    return {
        "images": len(pixels),
        "top1": None if labels is None else 100 * correct / len(pixels),
        "spikes_per_image": float(means.sum()),
        "spikes_per_layer": {layer: float(m.sum()) for layer, m in zip(layers, means, strict=True)},
        "spikes_per_step": means.sum(0).tolist(),
    }


def _check_counters(proto: onnx.ModelProto, about: About, image: NDArray[np.float32]) -> None:
    """Raises ZooError unless the counters that a file brings count its spikes, on one image."""
    session = create_session(add_spike_outputs(proto).SerializeToString(), threads=1)
    for layer, value in about.spike_values.items():
        spikes, counted = run_session(session, [value, PREFIX + layer], image)
        if not np.array_equal(spikes.reshape(about.timesteps, -1).sum(1)[None], counted):
            raise ZooError(f"the model's counter of {shown(layer)} does not count its spikes: nothing was measured")
