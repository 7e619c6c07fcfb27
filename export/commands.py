"""The command lines of export and demo: read and checked before PyTorch is loaded."""

import argparse
from pathlib import Path

from zoo.errors import CommandParser, ZooError, one_of
from zoo.files import check_writable, user_path
from zoo.names import FOLDERS, check_dataset, check_source
from zoo.plugins import add_plugin_option
from zoo.specs import check_timesteps

LAYOUTS = ["flat", "function", "step", "loop"]
"""What `layout` takes; see `export.layouts`."""
PRECISIONS = ["fp32", "fp16", "int8", "int16"]
"""What `precision` takes."""
NETWORKS = {
    "max_resnet18_w32_gs.t4_cifar10": "Most accurate",
    "sresnet19_w32.t2_cifar10": "Two steps",
    "svgg11_w16.t4_cifar10": "Fewest spikes",
}
"""The networks of a page unless others are asked for, and what they are there for."""
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
    "layout": "flat", "precision": "fp32", "calibration": None, "spike_counts": False,
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
    parser.add_argument("--to", default="onnx", choices=["onnx", "nir"], help="what to write (onnx)")
    parser.add_argument("--layout", default="flat", metavar="LAYOUT", help=f"{', '.join(LAYOUTS)} (flat)")
    text = f"{', '.join(PRECISIONS)} (fp32); fp16: weights alone; int8: scales from training images; int16: skips zeros"
    parser.add_argument("--precision", default="fp32", metavar="PRECISION", help=text)
    text = "data set whose training images these are (that of the training), or FILE.npz"
    parser.add_argument("--calibration", metavar="DATA", help=text)
    text = "how many of them (256)"
    parser.add_argument("--calibration-images", type=int, metavar="N", help=text)
    parser.add_argument("--spike-counts", action="store_true", help="add the spikes of every layer as outputs")
    parser.add_argument("--step-logits", action="store_true", help="add the logits of every time step as an output")
    parser.add_argument("--timesteps", type=int, metavar="N", help="time steps, if not those of the checkpoint")
    parser.add_argument(
        "--data", help="verify on cifar10, cifar100, digits, folder:DIR (test sets) or FILE.npz (default: noise)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are (SNNZOO_DATA)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only (1000)")
    parser.add_argument("--json", metavar="FILE", help="write the full report here")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    read = list(filter(None, [args.data, args.calibration]))
    check_writable(args.output, *read)
    if args.json:
        check_writable(args.json, args.output, *read)
    _check_options(args)
    if args.layout not in LAYOUTS:
        raise one_of("layout", args.layout, LAYOUTS)
    if args.precision not in PRECISIONS and args.precision != "bf16":  # which export has a word on
        raise one_of("precision", args.precision, PRECISIONS)
    if args.timesteps is not None:
        check_timesteps(args.timesteps)
    if "plugin" not in args:
        check_source(args.source, trained=False)
        for data in read:
            _check_data(data, args.data_dir)
    return args


def _check_data(data: str, root: str | None) -> None:
    """Raises ZooError for a data set or file of arrays that is not there."""
    if Path(data).suffix not in (".npz", ".npy") or data.startswith(FOLDERS):
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


def parse_demo(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of export.demo."""
    parser = CommandParser(prog="python -m export.demo", description="Make a page on which people see networks spike.")
    parser.add_argument("out", metavar="OUT", help="the folder, which any file server can serve")
    parser.add_argument("networks", metavar="NETWORK", nargs="*", default=list(NETWORKS), help="names, run directories")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare graphs with PyTorch")
    parser.add_argument("--serve", action="store_true", help="serve it to this machine until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000, help="for --serve (default: 8000; 0: any that is free)")
    args = parser.parse_args(argv)
    if not 0 <= args.port < 2**16:
        raise ZooError(f"--port must be from 0 to 65535, not {args.port}")
    for network in args.networks:
        check_source(network)
    return args
