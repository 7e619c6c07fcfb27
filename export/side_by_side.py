"""Several graphs in one measurement, whoever made them, and what they are compared with."""

from collections.abc import Sequence
from typing import Any

from zoo.errors import ZooError
from zoo.files import sha256_of
from zoo.provenance import provenance

from .baselines import baseline
from .benchmark import File, Latencies, graph_in, measure, score
from .describe import weights_sha256
from .images import Loaded
from .session import check_session, device_of
from .source import network_of
from .timing import Graph, Subject, check_settings
from .timing.inputs import find_inputs


def side_by_side(
    files: Sequence[File],
    against: Sequence[str],
    asked: Latencies,
    *,
    network: str | None = None,
    input_shape: Sequence[int] | None = None,
    images: Loaded | None = None,
    provider: str,
    optimization: str,
) -> dict[str, Any]:
    """Time graphs and baselines in turns.

    Args:
        files: the first one is what ratios are to.
        against: names of baselines, made of the network of the first file; see `export.baselines`.
        asked: settings and runs.
        network: the checkpoint of the first file, if its metadata do not lead to it.
        input_shape: of one entry of the batch, for files of others.
        images: for accuracy and spikes of files of ours, and to time them on; noise without.
        provider, optimization: see `export.benchmark`.

    Returns:
        JSON values: schema, kind ("side_by_side"), subjects [{name, file, sha256, bytes, precision, layout,
        weights_sha256, images, top1, spikes_per_image, latency, profile}], dataset, provider, optimization, rounds,
        provenance. What is not known is None.

    Raises:
        ZooError: a file, a baseline or a setting that cannot be measured.
    """
    check_session(provider, optimization)
    check_settings(*asked[:4])
    if against and files[0].about is None:
        raise ZooError(f"no baselines: {files[0].path} is not from `python -m export`, its network is not known")
    how: dict[str, Any] = {"provider": provider, "optimization": optimization}
    subjects: list[Subject] = [
        _graph(name, file, asked, input_shape, images, how) for name, file in zip(_names(files), files, strict=True)
    ]
    told = [_entry(subject) | _of_file(file) for subject, file in zip(subjects, files, strict=True)]
    if against:
        first = files[0]
        assert first.about is not None
        model = network_of(first.path, first.proto, first.about, network)
        made = [baseline(name, model, **how) for name in dict.fromkeys(against)]
        subjects += made
        told += [_entry(subject) | {"weights_sha256": weights_sha256(model)} for subject in made]
    for subject, file, entry in zip(subjects, files, told, strict=False):
        if file.about is not None and isinstance(subject, Graph):
            entry |= score(subject, file.proto, file.about, images)
    measured = measure(subjects, asked)
    return {
        "schema": 1, "kind": "side_by_side",
        "subjects": [
            entry | {"latency": latency, "profile": profile}
            for entry, (latency, profile) in zip(told, measured, strict=True)
        ],
        "dataset": images and images.dataset, "provider": provider, "optimization": optimization,
        "rounds": min(asked.rounds, asked.runs), **provenance(gpu=device_of(provider) == "cuda"),
    }  # fmt: skip


def _graph(
    name: str, file: File, asked: Latencies, shape: Sequence[int] | None, images: Loaded | None, how: dict[str, Any]
) -> Graph:
    if file.about is not None:
        return graph_in(name, file.data, file.about, images, **how)
    if images is not None:
        raise ZooError(f"{file.path} is not from `python -m export`: its accuracy cannot be measured, leave out --data")
    inputs = find_inputs(file.proto, str(file.path), asked.batch_sizes, shape)
    return Graph(name, file.data, inputs, [output.name for output in file.proto.graph.output], **how)


def _names(files: Sequence[File]) -> list[str]:
    """Files by their names, or by their paths where two have the same."""
    names = [file.path.name for file in files]
    shown = [name if names.count(name) == 1 else str(file.path) for name, file in zip(names, files, strict=True)]
    if twice := [name for name in shown if shown.count(name) > 1]:
        raise ZooError(f"{twice[0]} is named twice: once is enough")
    return shown


def _entry(subject: Subject) -> dict[str, Any]:
    """What is known of anything that is timed."""
    data = subject.data if isinstance(subject, Graph) else None
    unknown = dict.fromkeys(
        ("file", "model", "tag", "weights_sha256", "timesteps", "images", "top1", "spikes_per_image", "spikes_per_step")
    )
    return {"name": subject.name, **unknown, "bytes": data and len(data), "precision": "fp32", "layout": None}


def _of_file(file: File) -> dict[str, Any]:
    known: dict[str, Any] = {"file": file.path.name, "sha256": sha256_of(file.data), "precision": None}
    if (about := file.about) is not None:
        known |= {"model": about.architecture, "tag": about.tag, "weights_sha256": about.weights_sha256}
        known |= {"timesteps": about.timesteps, "precision": about.precision, "layout": about.layout}
    return known
