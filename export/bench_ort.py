"""Measure an exported graph in ONNX Runtime: `python -m export.bench_ort model.onnx --data cifar10`."""

import argparse
from typing import Any

from zoo.errors import CommandParser, run_command
from zoo.files import write_json
from zoo.plugins import add_plugin_option
from zoo.record import seal

from .benchmark import benchmark, read_graph
from .images import load_images
from .session import CPU, OPTIMIZATIONS

_EXAMPLE = """
example:
  python -m export sresnet19_w16_gs.t2_cifar10 -o model.onnx
  python -m export.bench_ort model.onnx --data cifar10 --batch 1 8 --threads 1 2 --json result.json

An .npz holds "images", uint8 pixels [N, C, H, W] or normalised float32, and optionally "labels" [N].
"""


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(
        prog="python -m export.bench_ort",
        description="Top-1, spikes per image and latency of an exported network in ONNX Runtime.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="an .onnx file from `python -m export`")
    parser.add_argument(
        "--data", help="cifar10, cifar100, digits, folder:DIR (test sets) or FILE.npz; without: latency only"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="batch sizes to time (1)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="thread counts to time (1)")
    parser.add_argument("--runs", type=int, default=50, metavar="N", help="timed runs (50)")
    parser.add_argument("--provider", default=CPU, help=f"ONNX Runtime's execution provider ({CPU})")
    parser.add_argument("--optimization", default="all", choices=list(OPTIMIZATIONS), help="graph optimisation (all)")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    data: dict[str, Any] = {}
    if args.data:
        data = load_images(args.data, args.data_dir, args.limit, read_graph(args.model)[2].input_size)._asdict()
    how = {key: getattr(args, key) for key in ("threads", "runs", "provider", "optimization")}
    result = benchmark(args.model, **data, batch_sizes=args.batch, **how)
    if args.json:
        write_json(args.json, seal(result))
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """A measurement for people."""
    name = ".".join(filter(None, (result["model"], result["tag"])))
    lines = [f"{name}, T = {result['timesteps']}, {result['provider']}, optimization {result['optimization']}"]
    if result["top1"] is not None:
        lines.append(f"top-1             {result['top1']:.2f} % of {result['images']} images")
    if result["spikes_per_image"] is not None:
        steps = ", ".join(f"{n:,.0f}" for n in result["spikes_per_step"])
        lines.append(f"spikes per image  {result['spikes_per_image']:,.0f} (by time step: {steps})")
    lines.append(f"{'batch':>5} {'threads':>7} {'p50 ms':>9} {'p95 ms':>9}")
    for row in result["latency"]:
        lines.append(f"{row['batch']:>5} {row['threads']:>7} {row['p50_ms']:>9.2f} {row['p95_ms']:>9.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
