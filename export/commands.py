"""The command lines of export, bench-ort and demo: read and checked before PyTorch is loaded."""

import argparse
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from zoo.errors import CommandParser, ZooError, count, one_of
from zoo.files import check_writable, user_path
from zoo.names import BUILTIN, FOLDERS, FORMS, check_dataset, check_source
from zoo.plugins import add_plugin_option
from zoo.schema import Model, parse
from zoo.specs import check_timesteps

LAYOUTS = ["flat", "function", "step", "loop"]
"""What `layout` takes; see `export.graph`."""
PRECISIONS = ["fp32", "fp16", "int8", "int16"]
"""What `precision` takes."""
LEVELS = ["disable", "basic", "extended", "layout", "all"]
"""Of ONNX Runtime's graph optimisation; each contains the ones before."""
BASELINES = ["eager", "event", "compiled", "floor", "relu", "relu-int8", "spikingjelly"]
"""What files are timed against; see `export.baselines`."""
NETWORKS = {
    "max_resnet18_w32_gs.t4_cifar10": "Most accurate under a million parameters",
    "sresnet19_w32.t2_cifar10": "Two steps",
    "svgg11_w16.t4_cifar10": "Fewest spikes",
}
"""The networks of a page unless others are asked for, and what they are there for."""
_KNOWN = ", ".join([*BUILTIN, *FORMS])
_EXAMPLE = """
examples:
  python -m export runs/sresnet19_w32.t4_cifar10-seed0 -o m.onnx   a checkpoint of your own
  python -m export sresnet19_w16_gs.t2_cifar10 -o model.onnx       a bundled one
  python -m export hf-hub:ORG/NAME@REVISION -o model.onnx          one from a repository of the Hub
  python -m export sresnet19_w32_gs -o step.onnx --layout step     one time step, for streams (export.Stream)
  python -m export sresnet19_w32_gs -o int8.onnx --precision int8  eight bits, scales from 256 training images
  python -m export sresnet19_w32_gs -o int16.onnx --precision int16  event-driven: skips zeros where our library runs it
  python -m export sresnet19 -o untrained.onnx --timesteps 6         no bundled weights: initialised with seed 0

The file is written only after its graph was verified against PyTorch: bit for bit on an exact copy of the network, and
by the rate of differing spikes and predicted classes on the real weights.
"""

_ONNX_ONLY = {
    "layout": "flat", "precision": "fp32", "verify": "full", "calibration": None, "spike_counts": False,
    "step_logits": False, "data": None, "data_dir": None, "limit": None, "calibration_images": None,
}  # fmt: skip
"""Options of ONNX alone, and their values by default."""


def parse_export(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of export."""
    parser = CommandParser(
        prog="python -m export",
        description="Write a spiking network as an ONNX graph of standard operators.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = "a checkpoint directory, a model of the zoo, or hf-hub:ORG/NAME"
    parser.add_argument("source", metavar="CHECKPOINT|MODEL", help=source)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .onnx or .nir file to write")
    parser.add_argument("--to", choices=["onnx", "nir"], help="what to write (as FILE ends; onnx)")
    parser.add_argument("--layout", default="flat", metavar="LAYOUT", help=f"{', '.join(LAYOUTS)} (flat)")
    text = f"{', '.join(PRECISIONS)} (fp32); fp16: weights alone; int8: scales from training images; int16: skips zeros"
    parser.add_argument("--precision", default="fp32", metavar="PRECISION", help=text)
    text = "data set whose training images these are (that of the training), or FILE.npz"
    parser.add_argument("--calibration", metavar="DATA", help=text)
    text = "how many of them (256)"
    parser.add_argument("--calibration-images", type=count, metavar="N", help=text)
    parser.add_argument("--spike-counts", action="store_true", help="add the spikes of every layer as outputs")
    parser.add_argument("--step-logits", action="store_true", help="add the logits of every time step as an output")
    parser.add_argument("--timesteps", type=int, metavar="N", help="time steps, if not those of the checkpoint")
    parser.add_argument("--data", help=f"verify on the test set of {_KNOWN}, or on FILE.npz (default: noise)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are (SNNZOO_DATA)")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N images only (1000)")
    text = "full (by default), or quick: two of five optimisation levels, 32 images at most"
    parser.add_argument("--verify", default="full", choices=["full", "quick"], help=text)
    parser.add_argument("--json", metavar="FILE", help="write the full report here")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    ending = Path(args.output).suffix[1:]
    args.to = args.to or ("nir" if ending == "nir" else "onnx")
    read = list(filter(None, [args.data, args.calibration]))
    check_writable(args.output, args.source, *read)
    if args.json:
        check_writable(args.json, args.output, args.source, *read)
    _check_options(args)
    if ending in ("onnx", "nir") and ending != args.to:
        raise ZooError(f"--to {args.to} writes no .{ending} file: give {args.output} another ending, or leave --to out")
    check_layout(args.layout, args.precision)
    if args.timesteps is not None:
        check_timesteps(args.timesteps)
    check_source(args.source, trained=False)
    for data in read:
        _check_data(data, args.data_dir)
    return args


def check_layout(layout: str, precision: str) -> None:
    """Raises ZooError unless there are such a precision and such a layout of it."""
    if precision not in PRECISIONS:
        raise one_of("precision", precision, PRECISIONS)
    if layout not in LAYOUTS:
        raise one_of("layout", layout, LAYOUTS)
    known = {"int8": ["flat"], "int16": ["flat", "step"]}.get(precision, LAYOUTS)
    if layout not in known:
        raise ZooError(f"{precision} has the layout {' or '.join(known)} alone, not {layout!r}")


def is_file(data: str) -> bool:
    """Returns whether a command's data are a file of arrays, rather than the name of a data set."""
    return Path(data).suffix in (".npz", ".npy") and not data.startswith(FOLDERS)


def _check_data(data: str, root: str | None) -> None:
    """Raises ZooError for a data set or file of arrays that is not there."""
    if not is_file(data):
        check_dataset(data, root)
    elif not user_path(data).is_file():
        raise ZooError(f"no such file: {data}")


def _check_options(args: argparse.Namespace) -> None:
    """Raises ZooError for an option that would do nothing."""
    if args.to == "nir":
        if given := [option for option, value in _ONNX_ONLY.items() if getattr(args, option) != value]:
            raise ZooError(f"--{given[0].replace('_', '-')} is for ONNX: a NIR graph is one time step, and has no gate")
        return
    int8 = args.precision == "int8"
    for option, wanted, what in (
        ("limit", args.data, "--data"),
        ("calibration", int8, "--precision int8"),
        ("calibration_images", int8, "--precision int8"),
        ("data_dir", args.data or int8, "--data or --precision int8"),
    ):
        if (value := getattr(args, option)) is not None and not wanted:
            raise ZooError(f"--{option.replace('_', '-')} {value} is for {what}: give it, or leave it out")


class Settings(Model):
    """What is timed, and how often."""

    batch_sizes: list[Annotated[int, Field(ge=1, le=4096)]] = Field([1], min_length=1)
    """Latency is measured at each of these ..."""
    threads: list[Annotated[int, Field(ge=1, le=4 * (os.cpu_count() or 1))]] = Field([1], min_length=1)
    """... with each of these numbers of threads within an operator."""
    runs: int = Field(50, ge=1, le=10**6)
    """Timed runs of each subject at each pair, dealt out over the rounds."""
    rounds: int = Field(5, ge=1, le=10**4)
    """In each, every subject has a turn at every pair; no more than there are runs."""
    memory: bool = False
    """Whether the peak memory of every pair is measured, too."""
    profile: bool = False
    """Whether the time of each kind of operator is measured, at the first pair."""

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Batch and threads of each setting, in the order of the rows."""
        return [(batch, n) for n in self.threads for batch in self.batch_sizes]


def settings(**values: Any) -> Settings:
    """Builds `Settings`."""
    return parse(Settings, values, "timing")


_BENCH = """
examples:
  python -m export sresnet19_w32_gs.t4_cifar10 -o model.onnx
  python -m export.bench_ort model.onnx --data cifar10 --batch 1 8 --threads 1 2 --json result.json
  python -m export.bench_ort model.onnx int8.onnx --against floor relu eager    side by side, ratios to the first
  python -m export.bench_ort elsewhere.onnx --input-shape 3 224 224 --profile   anybody's file

What is compared takes turns, round by round, each turn with a session of its own and three runs to warm it up, and one
session alive at a time. Peak memory is that of a process of its own, beyond Python and its libraries.

--against is made of the network that the first file's metadata name, with its weights if they are bundled or published,
or --network has them; others, of seed 0, take as long where operations are dense, and `event` refuses them.
  eager, compiled  the network in PyTorch, neurons in the fused kernel
  event            the same, eager, whose convolutions skip zeros
  floor            its graph with identity neurons: what convolutions alone cost
  relu             its graph with ReLU for neurons, at one time step, in float32: the network that does not spike
  relu-int8        the same in eight bits, by ONNX Runtime's own quantisation
  spikingjelly     the same network of SpikingJelly's layers, by torch.onnx; sresnet only, needs spikingjelly

An .npz holds "images", uint8 pixels [N, C, H, W] or normalised float32, and optionally "labels" [N].
"""


def parse_bench(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of export.bench_ort."""
    parser = CommandParser(
        prog="python -m export.bench_ort",
        description="Top-1, spikes per image, latency and memory of exported networks in ONNX Runtime, side by side.",
        epilog=_BENCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "an .onnx file from `python -m export`; from elsewhere: without accuracy and spikes"
    parser.add_argument("models", metavar="FILE", nargs="+", help=text)
    parser.add_argument("--data", help=f"the test set of {_KNOWN}, or FILE.npz; without: latency only")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N images only")
    text = f"also time {', '.join(BASELINES)}"
    parser.add_argument("--against", nargs="+", default=[], choices=BASELINES, metavar="BASELINE", help=text)
    parser.add_argument("--network", metavar="CHECKPOINT|MODEL", help="what the first file was exported from")
    text = "of one image, where a file from elsewhere leaves it open"
    parser.add_argument("--input-shape", type=int, nargs="+", metavar="N", help=text)
    parser.add_argument(
        "--batch", dest="batch_sizes", type=int, nargs="+", default=[1], metavar="N", help="batch sizes to time (1)"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="thread counts to time (1)")
    parser.add_argument("--runs", type=int, default=50, metavar="N", help="timed runs of each (50)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns that they are dealt out to (5)")
    text = "peak memory, a few seconds more (on)"
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help=text)
    text = "time by kind of operator, at the first batch size and thread count"
    parser.add_argument("--profile", action="store_true", help=text)
    parser.add_argument(
        "--provider", default="CPUExecutionProvider", help="ONNX Runtime's execution provider (%(default)s)"
    )
    parser.add_argument("--optimization", default="all", choices=LEVELS, help="graph optimisation (all)")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    settings(batch_sizes=args.batch_sizes, threads=args.threads, runs=args.runs, rounds=args.rounds)
    if args.json:
        check_writable(args.json, *args.models, *filter(None, [args.data]))
    if args.network and not args.against:
        raise ZooError("--network is what --against is made of: name baselines, or leave it out")
    for option, value in (("limit", args.limit), ("data-dir", args.data_dir)):
        if value is not None and not args.data:
            raise ZooError(f"--{option} {value} is for --data: give it, or leave it out")
    for file in args.models:
        if not user_path(file).is_file():
            raise ZooError(f"no such file: {file}")
    if args.network:
        check_source(args.network, trained=False)
    if args.data:
        _check_data(args.data, args.data_dir)
    return args


def parse_demo(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of export.demo."""
    parser = CommandParser(prog="python -m export.demo", description="Make a page on which people see networks spike.")
    parser.add_argument("out", metavar="OUT", help="the folder, which any file server can serve")
    text = f"names and run directories; by default {', '.join(NETWORKS)}"
    parser.add_argument("networks", metavar="NETWORK", nargs="*", default=list(NETWORKS), help=text)
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare graphs with PyTorch")
    parser.add_argument("--serve", action="store_true", help="serve it to this machine until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000, help="for --serve (default: 8000; 0: any that is free)")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    if not 0 <= args.port < 2**16:
        raise ZooError(f"--port must be from 0 to 65535, not {args.port}")
    for network in args.networks:
        check_source(network)
    return args
