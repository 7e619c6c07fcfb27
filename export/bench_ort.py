"""Measures graphs in ONNX Runtime: `python -m export.bench_ort model.onnx --data cifar10`."""

import argparse
from collections.abc import Sequence
from typing import Any

from zoo.errors import CommandParser, ZooError, run_command
from zoo.files import check_writable, write_json
from zoo.plugins import add_plugin_option

from .baselines import BASELINES
from .bench import measure, read_file
from .images import load_images
from .run import CPU, OPTIMIZATIONS, check_session
from .timing import settings

_EXAMPLE = """
examples:
  python -m export sresnet19_w32_gs.t4_cifar10 -o model.onnx
  python -m export.bench_ort model.onnx --data cifar10 --batch 1 8 --threads 1 2 --json result.json
  python -m export.bench_ort model.onnx int8.onnx --against floor relu eager    side by side, ratios to the first
  python -m export.bench_ort elsewhere.onnx --input-shape 3 224 224 --profile   anybody's file

What is compared takes turns, round by round, each turn with a session of its own and three runs to warm it up, and one
session alive at a time. Peak memory is that of a process of its own, beyond Python and its libraries.

--against is made of the network that the first file's metadata name, with its weights if they are bundled or published,
or --network has them; others, of seed 0, are as fast, as all these operations are dense.
  eager, compiled  the network in PyTorch, neurons in the fused kernel
  event            the same, eager, whose convolutions skip zeros
  floor            its graph with identity neurons: what convolutions alone cost
  relu             its graph with ReLU for neurons, at one time step, in float32: the network that does not spike
  relu-int8        the same in eight bits, by ONNX Runtime's own quantisation
  spikingjelly     the same network of SpikingJelly's layers, by torch.onnx; sresnet only, needs spikingjelly

An .npz holds "images", uint8 pixels [N, C, H, W] or normalised float32, and optionally "labels" [N].
"""


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(
        prog="python -m export.bench_ort",
        description="Top-1, spikes per image, latency and memory of exported networks in ONNX Runtime, side by side.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "an .onnx file from `python -m export`; from elsewhere: without accuracy and spikes"
    parser.add_argument("models", metavar="FILE", nargs="+", help=text)
    parser.add_argument(
        "--data", help="cifar10, cifar100, digits, folder:DIR (test sets) or FILE.npz; without: latency only"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    text = f"also time {', '.join(BASELINES)}"
    parser.add_argument("--against", nargs="+", default=[], choices=BASELINES, metavar="BASELINE", help=text)
    parser.add_argument("--network", metavar="CHECKPOINT|MODEL", help="what the first file was exported from")
    text = "of one image, where a file from elsewhere leaves it open"
    parser.add_argument("--input-shape", type=int, nargs="+", metavar="N", help=text)
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="batch sizes to time (1)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="thread counts to time (1)")
    parser.add_argument("--runs", type=int, default=50, metavar="N", help="timed runs of each (50)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns that they are dealt out to (5)")
    text = "peak memory, a few seconds more (on)"
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help=text)
    text = "time by kind of operator, at the first batch size and thread count"
    parser.add_argument("--profile", action="store_true", help=text)
    parser.add_argument("--provider", default=CPU, help=f"ONNX Runtime's execution provider ({CPU})")
    parser.add_argument("--optimization", default="all", choices=list(OPTIMIZATIONS), help="graph optimisation (all)")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    how = {"provider": args.provider, "optimization": args.optimization}
    # What is wrong is said before anything takes minutes.
    check_session(**how)
    asked = settings(
        batch_sizes=args.batch, threads=args.threads, runs=args.runs, rounds=args.rounds, memory=args.memory,
        profile=args.profile,
    )  # fmt: skip
    if args.json:
        check_writable(args.json, *args.models, *filter(None, [args.data]))
    if args.network and not args.against:
        raise ZooError("--network is what --against is made of: name baselines, or leave it out")
    for option, value in (("limit", args.limit), ("data-dir", args.data_dir)):
        if value is not None and not args.data:
            raise ZooError(f"--{option} {value} is for --data: give it, or leave it out")
    files = [read_file(model) for model in args.models]
    if args.input_shape and all(file.about for file in files):
        raise ZooError("--input-shape is for files from elsewhere: these say their own")
    images = None
    if args.data:
        prepare = files[0].about.cfg if files[0].about else None
        images = load_images(args.data, args.data_dir, args.limit, prepare)
    made_of = {"network": args.network, "input_shape": args.input_shape}
    result = measure(files, images, asked, against=args.against, **made_of, **how)
    if args.json:
        write_json(args.json, result)
    print(table(result, files[0].path.name))


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
    rows = [[head, "p50 ms", "p90 ms", "p99 ms", "ratio", "images/s", "peak MB", "file MB"]]
    for subject, row in zip(subjects, times, strict=True):
        cells = [f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms", "p99_ms")]
        cells += [f"{row['p50_ms'] / times[0]['p50_ms']:.2f}", f"{row['images_per_second']:,.0f}"]
        rows.append([subject["name"], *cells, _megabytes(row.get("peak_bytes"), 0), _megabytes(subject["bytes"], 2)])
    return _aligned(rows)


def _megabytes(count: int | None, digits: int) -> str:
    return "-" if count is None else f"{count / 1e6:.{digits}f}"


def _profile(subject: dict[str, Any], where: str) -> str:
    rows = [["operator", "nodes", "ms a run", "share"]]
    for row in subject["profile"]:
        rows.append([row["operator"], str(row["nodes"]), f"{row['ms']:.3f}", f"{row['share']:.1%}"])
    return f"{subject['name']}, {where}\n{_aligned(rows)}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    width = max(len(first) for first, *_ in rows)
    return "\n".join(" ".join([first.ljust(width), *(f"{cell:>9}" for cell in cells)]) for first, *cells in rows)


if __name__ == "__main__":
    run_command(main)
