"""What an exported graph costs in ONNX Runtime: accuracy, spikes and latency, read from the file alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.data.folder import check_class_names
from zoo.errors import ZooError, shown
from zoo.files import read_bytes
from zoo.result import onnx_result

from .about import About, check_weights, is_ours, read_about
from .counts import PREFIX, add_spike_counts, add_spike_outputs
from .images import Loaded, as_array, check_images, check_labels, normalise
from .session import CPU, LARGEST, check_session, create_session, run_session
from .timing import Graph, Subject, check_settings, time_all
from .timing.inputs import Input
from .timing.memory import peak_bytes
from .timing.operators import operators

_CHUNK = 64
_SCORES = ("images", "top1", "spikes_per_image", "spikes_per_layer", "spikes_per_step")
_PROFILED = 10
"""Runs at most for a profile."""


class Latencies(NamedTuple):
    """What is asked about time and memory; see `benchmark`."""

    batch_sizes: Sequence[int]
    threads: Sequence[int]
    runs: int
    rounds: int
    memory: bool
    profile: bool


def benchmark(
    path: str | os.PathLike[str],
    images: NDArray[Any] | torch.Tensor | None = None,
    labels: NDArray[Any] | torch.Tensor | None = None,
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
    """Measure a graph that `to_onnx` wrote.

    Args:
        path: the .onnx file.
        images: uint8 pixels [N, C, H, W], normalised as the file's metadata says, or float32 ones that are normalised.
            Without images there is no accuracy and no spike count, and latency is measured on noise.
        labels: classes [N].
        dataset: the name of the data set whose test images these are.
        classes: what that data set calls its classes; the network must have as many and, if the file says what it
            calls them, call them so.
        batch_sizes, threads: latency is measured for every pair; threads are those within an operator. At most 4096,
            and four threads a processor.
        runs: timed runs per pair.
        rounds: sessions that they are dealt out to, each with runs before that are not timed.
        memory: measure the peak memory of every pair, too.
        profile: measure the time of each kind of operator, for the first pair.
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
    provider = provider or CPU
    batch_sizes, threads = ((n,) if isinstance(n, int) else n for n in (batch_sizes, threads))
    check_session(provider, optimization)
    check_settings(batch_sizes, threads, runs, rounds)
    data, proto, about = read_graph(path)
    loaded = None
    if images is None and (labels is not None or dataset is not None):
        raise ZooError("labels, or the name of a data set, say nothing without its images: give these, too")
    if images is not None:
        loaded = Loaded(as_array(images), None if labels is None else as_array(labels), dataset, classes)
    asked = Latencies(batch_sizes, threads, runs, rounds, memory, profile)
    return record(File(Path(path), data, proto, about), loaded, asked, provider=provider, optimization=optimization)


class File(NamedTuple):
    """An ONNX file; `about` is None if somebody else made it."""

    path: Path
    data: bytes
    proto: onnx.ModelProto
    about: About | None


def read_file(path: str | os.PathLike[str]) -> File:
    """Any ONNX file.

    Raises:
        ZooError: see `read_proto`, or it is one of ours with broken metadata.
    """
    data, proto = read_proto(path)
    return File(Path(path), data, proto, read_about(proto, Path(path)) if is_ours(proto) else None)


def record(file: File, images: Loaded | None, asked: Latencies, **how: Any) -> dict[str, Any]:
    """The measurement of a file of ours, see `benchmark`; `how` is provider and optimization."""
    assert file.about is not None
    graph = graph_in(file.path.name, file.data, file.about, images, **how)
    measured = score(graph, file.proto, file.about, images)
    ((latency, profile),) = measure([graph], asked)
    dataset = images and images.dataset
    about = file.about._asdict()
    return onnx_result(file.data, about, measured, latency, dataset=dataset, profile=profile, **how)


def read_graph(path: str | os.PathLike[str]) -> tuple[bytes, onnx.ModelProto, About]:
    """A file that `to_onnx` wrote: its bytes, what they hold, and its metadata.

    Raises:
        ZooError: it cannot be read, is broken, or not from `to_onnx`.
    """
    data, proto = read_proto(path)
    return data, proto, read_about(proto, Path(path))


def read_proto(path: str | os.PathLike[str]) -> tuple[bytes, onnx.ModelProto]:
    """Any ONNX file: its bytes, and what they hold.

    Raises:
        ZooError: it cannot be read, is broken, holds NaN, or its weights are elsewhere.
    """
    path = Path(path)
    data = read_bytes(path, LARGEST)
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ZooError(f"{path} is not an ONNX file, or was cut short: export it again") from error
    check_weights(proto, path)
    return data, proto


def graph_in(name: str, data: bytes, about: About, images: Loaded | None, **how: Any) -> Graph:
    """A file of ours to be timed, on images if there are any, after a check of these.

    Raises:
        ZooError: images or labels do not fit the network.
    """
    graph = Graph(name, data, [Input("input", "float32", (0, *about.input_size))], ["logits"], **how)
    if images is None:
        return graph
    if images.classes is not None:
        data_set = images.dataset or "the data set"
        if len(images.classes) != about.num_classes:
            raise ZooError(f"model has {about.num_classes} classes, {data_set} has {len(images.classes)}")
        check_class_names(name, about.labels or images.classes, data_set, images.classes)
    check_images(images.images, about.input_size)
    if images.labels is not None:
        check_labels(images.labels, len(images.images), about.num_classes)
    return graph._replace(images=normalise(images.images[:_CHUNK], about.mean, about.std))


def score(graph: Graph, proto: onnx.ModelProto, about: About, images: Loaded | None) -> dict[str, Any]:
    """Accuracy and mean spikes of a file of ours over all images; None without any."""
    if graph.images is None or images is None:
        return dict.fromkeys(_SCORES)
    counting = add_spike_counts(proto)
    if counting is proto:
        _check_counters(proto, about, graph.images[:1])
    session = create_session(counting.SerializeToString(), provider=graph.provider, optimization=graph.optimization)
    return _count(session, images.images, images.labels, about.mean, about.std)


def measure(
    subjects: Sequence[Subject], asked: Latencies
) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]] | None]]:
    """Latency of each subject in every setting, and a profile if one is asked for and it is a graph.

    Raises:
        ZooError: a subject does not run.
    """
    latency = time_all(subjects, asked.batch_sizes, asked.threads, asked.runs, asked.rounds)
    if asked.memory:
        for rows, peaks in zip(latency, peak_bytes(subjects, asked.batch_sizes, asked.threads), strict=True):
            for row, peak in zip(rows, peaks, strict=True):
                row["peak_bytes"] = peak
    profiles: list[list[dict[str, Any]] | None] = [None] * len(subjects)
    for i, subject in enumerate(subjects):
        if asked.profile and isinstance(subject, Graph):
            runs = min(asked.runs, _PROFILED)
            profiles[i] = operators(subject, asked.batch_sizes[0], asked.threads[0], runs)
    return list(zip(latency, profiles, strict=True))


def _count(
    session: Any, pixels: NDArray[Any], labels: NDArray[Any] | None, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Accuracy and mean spikes over all images."""
    names = [output.name for output in session.get_outputs() if output.name.startswith(PREFIX)]
    counts = np.zeros((len(names), 1))  # [layers, timesteps] from the first chunk on
    correct = 0
    with tqdm(total=len(pixels), desc="spikes", unit="img", leave=False, disable=None) as bar:
        for i in range(0, len(pixels), _CHUNK):
            chunk = normalise(pixels[i : i + _CHUNK], mean, std)
            if not i:  # the first image by itself: a graph without end is stopped sooner
                run_session(session, ["logits"], chunk[:1])
            logits, *spikes = run_session(session, ["logits", *names], chunk)
            _check_measured(logits, spikes, len(chunk))
            counts = counts + np.stack(spikes).sum(1, dtype=np.float64)
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
        "spikes_per_layer": {n.removeprefix(PREFIX): float(m.sum()) for n, m in zip(names, means, strict=True)},
        "spikes_per_step": means.sum(0).tolist(),
    }


def _check_counters(proto: onnx.ModelProto, about: About, image: NDArray[np.float32]) -> None:
    """Raise ZooError unless the counters that a file brings count its spikes, on one image."""
    session = create_session(add_spike_outputs(proto).SerializeToString(), threads=1)
    for layer, value in about.spike_values.items():
        spikes, counted = run_session(session, [value, PREFIX + layer], image)
        if not np.array_equal(spikes.reshape(about.timesteps, -1).sum(1)[None], counted):
            raise ZooError(f"the model's counter of {shown(layer)} does not count its spikes: nothing was measured")


def _check_measured(logits: NDArray[Any], spikes: Sequence[NDArray[Any]], images: int) -> None:
    """Raise ZooError for what no network of spikes can give, whatever a file calls it."""
    if logits.shape[:1] != (images,) or not np.isfinite(logits).all():
        raise ZooError(f"the model gives no finite logits for each of {images} images: nothing was measured")
    for counted in spikes:
        if len(counted) != images or not (np.isfinite(counted) & (counted >= 0) & (counted == np.floor(counted))).all():
            raise ZooError("the model counts spikes that are no whole numbers from 0: nothing was measured")
