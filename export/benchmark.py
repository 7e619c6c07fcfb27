"""What an exported graph costs in ONNX Runtime: accuracy, spikes and latency, read from the file alone."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.errors import ZooError, shown
from zoo.files import read_bytes
from zoo.record import onnx_record

from .about import About, check_weights, read_about
from .counts import PREFIX, add_spike_counts, add_spike_outputs
from .images import check_images, check_labels, normalise
from .session import CPU, create_session, run_session

WARM_UP = 10
MAX_BATCH = 4096
MAX_THREADS = 4 * (os.cpu_count() or 1)
_CHUNK = 64
_LARGEST = 2**30  # bytes of a file
_SCORES = ("images", "top1", "spikes_per_image", "spikes_per_layer", "spikes_per_step")


def benchmark(
    path: str | os.PathLike[str],
    images: NDArray[Any] | torch.Tensor | None = None,
    labels: NDArray[Any] | torch.Tensor | None = None,
    *,
    dataset: str | None = None,
    classes: int | None = None,
    batch_sizes: Sequence[int] = (1,),
    threads: Sequence[int] = (1,),
    runs: int = 50,
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
        classes: how many classes that data set has; the network must have as many.
        batch_sizes, threads: latency is measured for every pair; threads are those within an operator. At most 4096,
            and four threads a processor.
        runs: timed runs per pair, after 10 that are not timed.
        provider: CPUExecutionProvider by default; it runs there or not at all.
        optimization: ONNX Runtime's graph optimisation: disable, basic, extended, layout or all.

    Returns:
        A measurement of kind "onnx", JSON values: model, tag, dataset, split ("test" of a data set), images, top1
        (percent), spikes_per_image, spikes_per_layer, spikes_per_step, timesteps, latency (ms), provider, optimization,
        epochs, seed and test_reads of the training, checksums, provenance. What is not known is None.

    Raises:
        ZooError: a file that is broken or not from `to_onnx`, images or labels that do not fit, a provider that does
            not work here.
    """
    limits = (("batch size", batch_sizes, MAX_BATCH), ("threads", threads, MAX_THREADS), ("runs", [runs], 10**6))
    for name, values, most in limits:
        if not values or min(values) < 1 or max(values) > most:
            raise ZooError(f"{name} must lie in 1..{most}, not {list(values)}")
    data, proto, about = read_graph(path)
    size, mean, std = about.input_size, about.mean, about.std
    provider = provider or CPU
    if classes is not None and classes != about.num_classes:
        raise ZooError(f"model has {about.num_classes} classes, {dataset or 'the data set'} has {classes}")
    pixels = None if images is None else np.asarray(images)
    truth = None if labels is None else np.asarray(labels)
    shape = (max(batch_sizes), *size)
    if pixels is None:
        measured: dict[str, Any] = dict.fromkeys(_SCORES)
        sample = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    else:
        check_images(pixels, size)
        if truth is not None:
            check_labels(truth, len(pixels), about.num_classes)
        counting = add_spike_counts(proto)
        if counting is proto:
            _check_counters(proto, about, normalise(pixels[:1], mean, std))
        session = create_session(counting.SerializeToString(), provider=provider, optimization=optimization)
        measured = _count(session, pixels, truth, mean, std)
        sample = normalise(np.resize(pixels, shape), mean, std)
    latency = []
    for n in threads:
        session = create_session(data, provider=provider, optimization=optimization, threads=n)
        for batch in batch_sizes:
            latency.append({"batch": batch, "threads": n, **_time(session, sample[:batch], runs)})
    return onnx_record(
        data, about._asdict(), measured, latency, dataset=dataset, provider=provider, optimization=optimization
    )


def read_graph(path: str | os.PathLike[str]) -> tuple[bytes, onnx.ModelProto, About]:
    """A file that `to_onnx` wrote: its bytes, what they hold, and its metadata.

    Raises:
        ZooError: it cannot be read, is broken, or not from `to_onnx`.
    """
    path = Path(path)
    data = read_bytes(path, _LARGEST)
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ZooError(f"{path} is not an ONNX file, or was cut short: export it again") from error
    check_weights(proto, path)
    return data, proto, read_about(proto, path)


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


def _time(session: Any, x: NDArray[np.float32], runs: int) -> dict[str, Any]:
    """Milliseconds per run, input and output in NumPy arrays."""
    x = np.ascontiguousarray(x)
    for _ in range(WARM_UP):
        run_session(session, ["logits"], x)
    times = []
    for _ in tqdm(range(runs), desc=f"latency, batch {len(x)}", leave=False, disable=None):
        begin = time.perf_counter()
        run_session(session, ["logits"], x)
        times.append(1000 * (time.perf_counter() - begin))
    p50, p95 = np.percentile(times, (50, 95))
    return {"p50_ms": float(p50), "p95_ms": float(p95), "runs": runs}
