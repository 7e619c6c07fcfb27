"""Export a network to ONNX: `python -m export sresnet19_w16_gs.t2_cifar10 -o model.onnx`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from zoo.errors import run_command
from zoo.files import write_json
from zoo.provenance import provenance

from .commands import parse_export
from .images import form_of, load_images, network_inputs, training_images
from .nir import to_nir
from .source import load
from .to_onnx import to_onnx
from .verify import ROUNDING

_MANY_STEPS = 16
"""Beyond so many, writing and proving a graph that has each of them takes minutes."""


def run(args: argparse.Namespace) -> None:
    """Exports what a command line says."""
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
        images = network_inputs(model, load_images(args.data, args.data_dir, limit, form_of(model)).images)
    calibration = None
    if args.precision == "int8":
        count = 256 if args.calibration_images is None else args.calibration_images
        calibration = training_images(model, args.calibration, args.data_dir, count)
    asked = {key: getattr(args, key) for key in ("layout", "precision", "spike_counts", "step_logits")}
    asked["verify"] = "quick" if args.verify == "quick" else True
    if (steps := model.timesteps) > _MANY_STEPS and args.layout in ("flat", "function"):
        text = f"{steps} time steps: to write and verify each takes minutes"
        if args.precision in ("fp32", "fp16"):
            text += "; --layout loop holds one, for any number"
        print(text, file=sys.stderr, flush=True)
    report = to_onnx(model, args.output, images=images, calibration=calibration, metadata=metadata, **asked)
    if args.json:
        write_json(args.json, report | provenance())
    print(summary(report, args.output))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_export(argv))


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
