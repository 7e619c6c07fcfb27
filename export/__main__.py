"""Export a network to ONNX: `python -m export sresnet19_w16_gs.t2_cifar10 -o model.onnx`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from zoo.errors import CommandParser, ZooError, run_command
from zoo.files import check_writable, write_json
from zoo.plugins import add_plugin_option
from zoo.provenance import provenance

from .file import LAYOUTS, PRECISIONS
from .images import check_source, load_images, network_inputs
from .int8 import training_images
from .network import input_size, time_steps
from .nir import to_nir
from .source import load
from .to_onnx import to_onnx
from .verify import ROUNDING

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

_MANY_STEPS = 16
"""Beyond so many, writing and proving a graph that has each of them takes minutes."""
_ONNX_ONLY = {
    "layout": "flat", "precision": "fp32", "calibration": None, "spike_counts": False,
    "step_logits": False, "data": None, "data_dir": None, "limit": None, "calibration_images": None,
}  # fmt: skip
"""Options of ONNX alone, and their values by default."""


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
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
    model, metadata = load(args.source, **({} if args.timesteps is None else {"timesteps": args.timesteps}))
    if args.to == "nir":
        report = to_nir(model, args.output, metadata)
        if args.json:
            write_json(args.json, report | provenance())
        print(f"{Path(args.output)}: {report['bytes'] / 1e6:.2f} MB, {report['nodes']} nodes, {report['edges']} edges")
        return
    images = None
    if args.data:
        limit = 1000 if args.limit is None else args.limit
        check_source(model, args.data)
        images = network_inputs(model, load_images(args.data, args.data_dir, limit, input_size(model)).images)
    calibration = None
    if args.precision == "int8":
        count = 256 if args.calibration_images is None else args.calibration_images
        calibration = training_images(model, args.calibration, args.data_dir, count)
    asked = {key: getattr(args, key) for key in ("layout", "precision", "spike_counts", "step_logits")}
    if (steps := time_steps(model)) > _MANY_STEPS and args.layout in ("flat", "function"):
        text = f"{steps} time steps: to write and verify each takes minutes; --layout loop holds one, for any number"
        print(text, file=sys.stderr, flush=True)
    report = to_onnx(model, args.output, images=images, calibration=calibration, metadata=metadata, **asked)
    if args.json:
        write_json(args.json, report | provenance())
    print(summary(report, args.output))


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


def summary(report: dict[str, Any], path: str) -> str:
    """Returns a report of `to_onnx` for people."""
    dyadic, real = report["verification"]["dyadic"], report["verification"]["real"]
    precision = report["metadata"]["precision"]
    other = "float32" if precision == "int8" else "PyTorch"
    lines = [
        f"{Path(path)}: {report['bytes'] / 1e6:.2f} MB, {report['nodes']} nodes, sha256 {report['sha256']}",
        f"exact copy:   {dyadic['layers']} neuron layers identical to {other} at {len(dyadic['levels'])} "
        f"optimisation levels, on images of {dyadic['input_size'][1]} x {dyadic['input_size'][2]} pixels",
        f"real weights: {real['flip_rate']:.2e} of neurons and time steps spike otherwise, top-1 agreement "
        f"{real['top1_agreement']:.2f} % ({real['images']} images, {real['inputs']}); PyTorch's own float32 against "
        f"float64: {real['rounding_flip_rate']:.2e}",
    ]
    if kernel := report["verification"].get("kernel"):
        same = "gives the same bits as standard operators" if kernel["identical"] else "is not there"
        lines.append(f"kernel:       {same}, {kernel['images']} images at {len(kernel['levels'])} optimisation levels")
    if not real["within_fixed_bounds"]:
        bounds = real["fixed_bounds"]
        excuse = f"{ROUNDING} times PyTorch's own rounding, or a single image, is allowed"
        if real["classes_are_chance"] and real["flip_rate"] <= bounds["flip_rate"]:
            excuse = "the class that a network names for noise is chance: give images (--data)"
        lines.append(
            f"caution:      beyond the fixed bounds ({bounds['flip_rate']:.0e} of neurons and time steps, "
            f"{bounds['top1_agreement']:.1f} % agreement): accepted only because {excuse}"
        )
    if real["silent_layers"]:
        silent = f"{len(real['silent_layers'])} of {dyadic['layers']} neuron layers never spike on these images"
        lines.append(f"caution:      {silent}, so the line above says nothing about them")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
