"""Measures graphs in ONNX Runtime: `python -m export.bench_ort model.onnx --data cifar10`."""

import argparse
from collections.abc import Sequence
from typing import Any

from zoo.errors import ZooError, run_command, text_table
from zoo.files import write_json

from .bench import measure, read_file
from .commands import Settings, is_file, parse_bench, settings
from .images import load_images
from .run import check_session


def run(args: argparse.Namespace) -> None:
    """Measures what a command line says."""
    how = {"provider": args.provider, "optimization": args.optimization}
    check_session(**how)
    asked = settings(**{key: value for key, value in vars(args).items() if key in Settings.model_fields})
    files = [read_file(model) for model in args.models]
    if args.input_shape and all(file.about for file in files):
        raise ZooError("--input-shape is for files from elsewhere: these say their own")
    images = None
    if args.data:
        forms = [file.about.cfg for file in files if file.about]
        prepare = forms[0] if forms else None
        if any(cfg != prepare for cfg in forms) and not is_file(args.data):
            raise ZooError("these networks take images or frames that are prepared otherwise: measure each by itself")
        images = load_images(args.data, args.data_dir, args.limit, prepare)
    made_of = {"network": args.network, "input_shape": args.input_shape}
    result = measure(files, images, asked, against=args.against, **made_of, **how)
    if args.json:
        write_json(args.json, result)
    print(table(result, files[0].path.name))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_bench(argv))


def table(result: dict[str, Any], name: str) -> str:
    """Returns a measurement for people; `name` is that of a single file."""
    single = result | {"name": name, "bytes": result.get("onnx_bytes")}
    subjects: list[dict[str, Any]] = result.get("subjects", [single])
    parts = [f"{result['provider']}, optimization {result['optimization']}"]
    parts += [_scores(subject) for subject in subjects if subject.get("model")]
    parts += [_latency(subjects, i) for i in range(len(subjects[0]["latency"]))]
    first = subjects[0]["latency"][0]
    where = f"batch {first['batch']}, threads {first['threads']}"
    parts += [_profile(subject, where) for subject in subjects if subject.get("profile")]
    return "\n\n".join(parts)


def _scores(subject: dict[str, Any]) -> str:
    name = ".".join(filter(None, (subject["model"], subject["tag"])))
    what = f"{name}, T = {subject['timesteps']}, {subject['precision']}, layout {subject['layout']}"
    lines = [f"{subject['name']}: {what}"]
    if subject["top1"] is not None:
        lines.append(f"top-1             {subject['top1']:.2f} % of {subject['images']} images")
    if subject["spikes_per_image"] is not None:
        steps = ", ".join(f"{n:,.0f}" for n in subject["spikes_per_step"])
        lines.append(f"spikes per image  {subject['spikes_per_image']:,.0f} (by time step: {steps})")
    return "\n".join(lines)


def _latency(subjects: Sequence[dict[str, Any]], setting: int) -> str:
    times = [subject["latency"][setting] for subject in subjects]
    head = f"batch {times[0]['batch']}, threads {times[0]['threads']}"
    names, rows = [head, "p50 ms", "p90 ms", "p99 ms", "ratio", "images/s", "peak MB", "file MB"], []
    for subject, row in zip(subjects, times, strict=True):
        cells = [f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms", "p99_ms")]
        cells += [f"{row['p50_ms'] / times[0]['p50_ms']:.2f}", f"{row['images_per_second']:,.0f}"]
        rows.append([subject["name"], *cells, _megabytes(row.get("peak_bytes"), 0), _megabytes(subject["bytes"], 2)])
    return text_table(names, rows, right=range(1, 8))


def _megabytes(count: int | None, digits: int) -> str:
    return "-" if count is None else f"{count / 1e6:.{digits}f}"


def _profile(subject: dict[str, Any], where: str) -> str:
    rows = [(row["operator"], row["nodes"], f"{row['ms']:.3f}", f"{row['share']:.1%}") for row in subject["profile"]]
    table = text_table(["operator", "nodes", "ms a run", "share"], rows, right=range(1, 4))
    return f"{subject['name']}, {where}\n{table}"


if __name__ == "__main__":
    run_command(main)
