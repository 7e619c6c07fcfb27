"""What an exported graph costs in ONNX Runtime: accuracy, spikes and latency, read from the file alone."""

from __future__ import annotations

import json
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

from zoo.errors import ZooError
from zoo.files import sha256_of
from zoo.provenance import provenance

from .counts import PREFIX, add_spike_counts
from .graph import SPIKE_VALUES
from .images import check_images, normalise
from .session import CPU, create_session

WARM_UP = 10
_CHUNK = 64
_NEEDED = ("architecture", "tag", "timesteps", "mean", "std", "input_size", "weights_sha256", SPIKE_VALUES)


def benchmark(
    path: str | os.PathLike[str],
    images: NDArray[Any] | torch.Tensor | None = None,
    labels: NDArray[Any] | torch.Tensor | None = None,
    *,
    dataset: str | None = None,
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
        dataset: the name under which the result files the images.
        batch_sizes, threads: latency is measured for every pair; threads are those within an operator.
        runs: timed runs a pair, after 10 that are not timed.
        provider: CPUExecutionProvider unless said otherwise; it runs there or not at all.
        optimization: ONNX Runtime's graph optimisation: disable, basic, extended, layout or all.

    Returns:
        A measurement of kind "onnx", JSON values: model, tag, dataset, images, top1 (percent), spikes_per_image,
        spikes_per_layer, spikes_per_step, timesteps, latency (ms), provider, optimization, checksums, provenance. What
        was not measured is None.

    Raises:
        ZooError: a file that is broken or not from `to_onnx`, images or labels that do not fit, a provider that does
            not work here.
    """
    for name, values in (("batch size", batch_sizes), ("threads", threads), ("runs", [runs])):
        if not values or min(values) < 1:
            raise ZooError(f"{name} must be 1 or more, not {list(values)}")
    data, proto, about = _read(path)
    size = json.loads(about["input_size"])
    provider = provider or CPU
    mean, std = json.loads(about["mean"]), json.loads(about["std"])
    pixels = None if images is None else np.asarray(images)
    if pixels is not None:
        check_images(pixels, size)
    measured: dict[str, Any] = dict.fromkeys(("top1", "spikes_per_image", "spikes_per_layer", "spikes_per_step"))
    if pixels is not None:
        counted = add_spike_counts(proto).SerializeToString()
        session = create_session(counted, provider=provider, optimization=optimization)
        measured = _count(session, pixels, None if labels is None else np.asarray(labels), mean, std)
    if pixels is None:
        sample = np.random.default_rng(0).standard_normal((max(batch_sizes), *size), dtype=np.float32)
    else:
        sample = normalise(np.resize(pixels, (max(batch_sizes), *size)), mean, std)
    latency = []
    for n in threads:
        session = create_session(data, provider=provider, optimization=optimization, threads=n)
        for batch in batch_sizes:
            latency.append({"batch": batch, "threads": n, **_time(session, sample[:batch], runs)})
    return {
        "schema": 1,
        "kind": "onnx",
        "model": about["architecture"],
        "tag": about["tag"],
        "dataset": dataset,
        "images": None if pixels is None else len(pixels),
        **measured,
        "timesteps": int(about["timesteps"]),
        "latency": latency,
        "provider": provider,
        "optimization": optimization,
        "weights_sha256": about["weights_sha256"],
        "onnx_sha256": sha256_of(data),
        "onnx_bytes": len(data),
        **provenance(),
    }


def _read(path: str | os.PathLike[str]) -> tuple[bytes, onnx.ModelProto, dict[str, str]]:
    path = Path(path)
    try:
        data = path.read_bytes()
        proto = onnx.load_model_from_string(data)
    except FileNotFoundError as error:
        raise ZooError(f"no such file: {path}") from error
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise ZooError(f"{path} is not an ONNX file, or was cut short: export it again") from error
    about = {p.key: p.value for p in proto.metadata_props}
    if missing := [key for key in _NEEDED if key not in about]:
        raise ZooError(
            f"{path} lacks the metadata of a file from `python -m export` ({', '.join(missing)}): it comes from "
            "elsewhere or was cut short; export it again"
        )
    return data, proto, about


def _count(
    session: Any, pixels: NDArray[Any], labels: NDArray[Any] | None, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Accuracy and mean spikes over all images."""
    if labels is not None and labels.shape != pixels.shape[:1]:
        raise ZooError(f"{len(pixels)} images need labels [{len(pixels)}], got {list(labels.shape)}")
    names = [output.name for output in session.get_outputs() if output.name.startswith(PREFIX)]
    counts = np.zeros((len(names), 1))  # [layers, timesteps] from the first chunk on
    correct = 0
    with tqdm(total=len(pixels), desc="spikes", unit="img", leave=False, disable=None) as bar:
        for i in range(0, len(pixels), _CHUNK):
            chunk = normalise(pixels[i : i + _CHUNK], mean, std)
            logits, *spikes = session.run(["logits", *names], {"input": chunk})
            counts = counts + np.stack(spikes).sum(1, dtype=np.float64)
            if labels is not None:
                if not 0 <= labels[i : i + _CHUNK].min() <= labels[i : i + _CHUNK].max() < logits.shape[1]:
                    raise ZooError(f"labels must lie in 0..{logits.shape[1] - 1}, the classes of this network")
                correct += int((logits.argmax(1) == labels[i : i + _CHUNK]).sum())
            bar.update(len(chunk))
    means = counts / len(pixels)
    return {
        "top1": None if labels is None else 100 * correct / len(pixels),
        "spikes_per_image": float(means.sum()),
        "spikes_per_layer": {n.removeprefix(PREFIX): float(m.sum()) for n, m in zip(names, means, strict=True)},
        "spikes_per_step": means.sum(0).tolist(),
    }


def _time(session: Any, x: NDArray[np.float32], runs: int) -> dict[str, Any]:
    """Milliseconds a run, input and output in NumPy arrays."""
    feed = {"input": np.ascontiguousarray(x)}
    for _ in range(WARM_UP):
        session.run(["logits"], feed)
    times = []
    for _ in tqdm(range(runs), desc=f"latency, batch {len(x)}", leave=False, disable=None):
        begin = time.perf_counter()
        session.run(["logits"], feed)
        times.append(1000 * (time.perf_counter() - begin))
    p50, p95 = np.percentile(times, (50, 95))
    return {"p50_ms": float(p50), "p95_ms": float(p95), "runs": runs}
