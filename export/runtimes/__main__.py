"""Networks in other runtimes, beside ONNX Runtime: `python -m export.runtimes NAME ... --data cifar10`."""

import argparse
import contextlib
import functools
import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from zoo.errors import CommandParser, ZooError, run_command
from zoo.files import check_writable, write_json
from zoo.plugins import add_plugin_option
from zoo.provenance import provenance, without_folders

from ..images import load_images
from ..inputs import check_source, network_inputs
from ..int8.calibration import training_images
from ..parts import input_size
from ..source import load
from ..to_onnx import to_onnx
from . import RUNTIMES, compare_sessions

FORMS: dict[str, dict[str, str]] = {
    "flat": {},
    "step": {"layout": "step"},
    "loop": {"layout": "loop"},
    "function": {"layout": "function"},
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
}
"""What is tried: layouts in float32, and the flat layout in other precisions, by the keywords of `to_onnx`."""
_CALIBRATION_IMAGES = 256
_EXAMPLE = """
examples:
  python -m export.runtimes sresnet19_w16_gs.t2_cifar10 --data cifar10 --runtimes openvino tract
  python -m export.runtimes runs/mine --data folder:flowers --forms flat int8 --json runtimes.json

forms: flat, step, loop, function: the layouts, in float32; fp16, int8: the flat one in these precisions, int8 with
scales from 256 training images of --data, of a file its first images
runtimes, each a package of pip's, on one thread of a CPU, an image at a time:
  openvino          told to compute in float32; openvino-default: as it chooses, bfloat16 where the processor has it
  opencv, tract     read the file themselves

Spike counts are compared image by image, layer by layer, step by step; a count that is no whole number means spikes
between 0 and 1.
"""


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(
        prog="python -m export.runtimes",
        description="Which other runtimes take the graphs of networks, and whether they compute the same spikes.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="CHECKPOINT|MODEL", nargs="+", help="as for `python -m export`")
    parser.add_argument("--data", required=True, help="cifar10, cifar100, digits, folder:DIR (test sets) or FILE.npz")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are (SNNZOO_DATA)")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="the first N images (64)")
    for option, known in (("forms", FORMS), ("runtimes", RUNTIMES)):
        text = f"of {', '.join(known)} (all)"
        parser.add_argument(
            f"--{option}", nargs="+", default=list(known), choices=list(known), metavar="NAME", help=text
        )
    parser.add_argument("--json", metavar="FILE", help="write the comparison here, after every graph")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    if args.json:
        check_writable(args.json, args.data)
    modules = {name: RUNTIMES[name].load() for name in args.runtimes}
    versions = {name: _version(RUNTIMES[name].package, module) for name, module in modules.items()}
    networks = {source: load(source) for source in args.names}
    for model, _ in networks.values():
        check_source(model, args.data)
    rows: list[dict[str, Any]] = []
    for source, (model, metadata) in networks.items():
        images = network_inputs(model, load_images(args.data, args.data_dir, args.limit, input_size(model)).images)
        calibration = None
        if "int8" in args.forms:
            calibration = training_images(model, args.data, args.data_dir, _CALIBRATION_IMAGES)
        for form in args.forms:
            print(f"{source}, {form}", flush=True)
            try:
                proto = _graph(model, metadata, calibration if form == "int8" else None, **FORMS[form])
            except ZooError as error:  # it has no such form
                tqdm.write(f"  {error}")
                continue
            creates = {name: functools.partial(RUNTIMES[name].create, module) for name, module in modules.items()}
            for name, found in compare_sessions(proto, images, creates):
                tqdm.write(f"  {name:16} {said(found)}")
                rows.append(_network(proto) | {"form": form, "runtime": name, "version": versions[name]} | found)
            if args.json:
                write_json(args.json, {"data": without_folders(args.data), "rows": rows} | provenance())


def _version(package: str, module: Any) -> str:
    """Of a runtime, whichever of several packages of pip's it came in."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return str(getattr(module, "__version__", "unknown"))


def _graph(model: nn.Module, metadata: dict[str, str], calibration: NDArray[Any] | None, **how: Any) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        to_onnx(model, file, calibration=calibration, metadata=metadata, spike_counts=True, verify=False, **how)
        return onnx.load(file)


def _network(proto: onnx.ModelProto) -> dict[str, str]:
    about = {p.key: p.value for p in proto.metadata_props}
    return {key: about[key] for key in ("architecture", "tag", "weights_sha256")}


def said(found: dict[str, Any]) -> str:
    """A comparison for people."""
    if "error" in found:
        return f"{found['error']:.160}"
    text = f"{found['same_class']} of {found['images']} images in the same class"
    if found["differing_counts"] is not None:
        text += f", {found['differing_counts']:.1e} of the spikes differ"
    if found["differing_counts"] and found["worst_layer_spikes"] is not None:
        text += f", in {found['worst_layer']} {found['worst_layer_spikes'] - 1:+.1%} spikes"
    if found["fractions"]:
        text += f", {found['fractions']} counts are no whole numbers"
    return text + (f", {found['not_finite']} values are no numbers" if found["not_finite"] else "")


if __name__ == "__main__":
    run_command(main)
