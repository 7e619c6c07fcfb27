"""Runs networks in runtimes other than ONNX Runtime: `python -m export.studies.runtimes NAME ... --data cifar10`.

Which of them take a graph, and do they compute the same spikes? A membrane potential within rounding of its threshold
may spike in one and not in the other, so a few differing spikes are no error; half a spike is.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.errors import CommandParser, ZooError, one_line, run_command
from zoo.files import check_writable, write_json
from zoo.plugins import add_plugin_option
from zoo.provenance import provenance, without_folders

from ..images import check_source, load_images, network_inputs
from ..instruments import PREFIX, add_spike_counts
from ..int8 import training_images
from ..network import input_size
from ..run import Runner
from ..source import load
from ..to_onnx import to_onnx

FORMS: dict[str, dict[str, Any]] = {
    "flat": {}, "step": {"layout": "step"}, "loop": {"layout": "loop"}, "function": {"layout": "function"},
    "fp16": {"precision": "fp16"}, "int8": {"precision": "int8"},
}  # fmt: skip
"""What is tried: layouts in float32, and the flat layout in other precisions, by the keywords of `to_onnx`."""
_CALIBRATION_IMAGES = 256
_LONGEST = 1000
"""Characters of a runtime's error."""
_EXAMPLE = """
examples:
  python -m export.studies.runtimes sresnet19_w16_gs.t2_cifar10 --data cifar10 --runtimes openvino tract
  python -m export.studies.runtimes runs/mine --data folder:flowers --forms flat int8 --json runtimes.json

forms: flat, step, loop, function: the layouts, in float32; fp16, int8: the flat one in these precisions, int8 with
scales from 256 training images of --data, of a file its first images
runtimes, each a package of pip's, on one thread of a CPU, an image at a time:
  openvino          told to compute in float32; openvino-default: as it chooses, bfloat16 where the processor has it
  opencv, tract     read the file themselves

Spike counts are compared image by image, layer by layer, step by step; a count that is no whole number means spikes
between 0 and 1.
"""

Call = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, Any]]
"""From inputs to all outputs, by name."""


class Session(NamedTuple):
    """A session of another runtime, which is asked as one of ONNX Runtime's is."""

    call: Call

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Returns the outputs of these names."""
        found = self.call({name: np.require(value, requirements="C") for name, value in inputs.items()})
        return [np.array(found[name]) for name in outputs]


class Runtime(NamedTuple):
    """A runtime that is a package of Python's."""

    module: str
    package: str
    """As pip calls it."""
    create: Callable[[Any, Path], Call]
    """From the module and a file to what runs it, on one thread of a CPU, for a batch of one."""

    def load(self) -> Any:
        """Imports its module.

        Raises:
            ZooError: it is not installed.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ZooError(f"{self.package} is not installed: pip install {self.package}") from error

    def version(self) -> str:
        """Returns its version, whichever of several packages of pip's it came in."""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(self.package)
        return str(getattr(self.load(), "__version__", "unknown"))


def _openvino(ov: Any, file: Path, **hints: str) -> Call:
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, **hints}
    compiled = ov.Core().compile_model(str(file), "CPU", settings)
    request = compiled.create_infer_request()

    def call(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        request.infer(dict(inputs))
        found = [(output, request.get_output_tensor(i).data) for i, output in enumerate(compiled.outputs)]
        return {name: value.copy() for output, value in found for name in output.names}

    return call


def _opencv(cv2: Any, file: Path) -> Call:
    cv2.setNumThreads(1)
    network, names = cv2.dnn.readNetFromONNX(str(file)), [value.name for value in onnx.load(file).graph.output]

    def call(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        for name, value in inputs.items():
            network.setInput(value, name)
        return dict(zip(names, network.forward(names), strict=True))

    return call


def _tract(tract: Any, file: Path) -> Call:
    model, graph = tract.onnx().load(str(file)), onnx.load(file).graph
    for i, value in enumerate(graph.input):
        sizes = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        model.set_input_fact(i, ",".join(map(str, [*sizes, f"{kind.kind}{8 * kind.itemsize}"])))
    ready = model.into_model().into_runnable()

    def call(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        found = ready.run([inputs[value.name] for value in graph.input])
        return {output.name: value.to_numpy() for output, value in zip(graph.output, found, strict=True)}

    return call


RUNTIMES = {
    "openvino": Runtime("openvino", "openvino", functools.partial(_openvino, INFERENCE_PRECISION_HINT="f32")),
    "openvino-default": Runtime("openvino", "openvino", _openvino),
    "opencv": Runtime("cv2", "opencv-python-headless", _opencv),
    "tract": Runtime("tract", "tract", _tract),
}
"""By name. OpenVINO is there twice: told to compute in float32, and as it chooses, which is bfloat16 on processors that
have it. MNN is not there: its converter installs packages into the environment that it runs in, unasked."""


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(
        prog="python -m export.studies.runtimes",
        description="Which other runtimes take the graphs of networks, and whether they compute the same spikes.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="CHECKPOINT|MODEL", nargs="+", help="as for `python -m export`")
    parser.add_argument("--data", required=True, help="cifar10, cifar100, digits, folder:DIR (test sets) or FILE.npz")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data sets are (SNNZOO_DATA)")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="the first N images (64)")
    for option, known in (("--forms", FORMS), ("--runtimes", RUNTIMES)):
        text = f"of {', '.join(known)} (all)"
        parser.add_argument(option, nargs="+", default=list(known), choices=list(known), metavar="NAME", help=text)
    parser.add_argument("--json", metavar="FILE", help="write the comparison here, after every graph")
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    if args.json:
        check_writable(args.json, args.data)
    modules = {name: RUNTIMES[name].load() for name in args.runtimes}
    creates = {name: functools.partial(RUNTIMES[name].create, module) for name, module in modules.items()}
    networks = {source: load(source) for source in args.names}
    for model, _ in networks.values():
        check_source(model, args.data)
    rows: list[dict[str, Any]] = []
    for source, (model, metadata) in networks.items():
        images = network_inputs(model, load_images(args.data, args.data_dir, args.limit, input_size(model)).images)
        for form in args.forms:
            print(f"{source}, {form}", flush=True)
            scales = training_images(model, args.data, args.data_dir, _CALIBRATION_IMAGES) if form == "int8" else None
            how: dict[str, Any] = {"calibration": scales, "metadata": metadata, "spike_counts": True, "verify": False}
            try:
                with tempfile.TemporaryDirectory() as folder:
                    to_onnx(model, file := Path(folder) / "model.onnx", **how, **FORMS[form])
                    proto = onnx.load(file)
            except ZooError as error:  # it has no such form
                tqdm.write(f"  {error}")
                continue
            about = {p.key: p.value for p in proto.metadata_props}
            network = {key: about[key] for key in ("architecture", "tag", "weights_sha256")}
            for name, found in compare_runtimes(proto, images, creates):
                tqdm.write(f"  {name:16} {said(found)}")
                rows.append(network | {"form": form, "runtime": name, "version": RUNTIMES[name].version()} | found)
            if args.json:
                write_json(args.json, {"data": without_folders(args.data), "rows": rows} | provenance())


def compare_runtimes(
    proto: onnx.ModelProto, images: NDArray[np.float32], creates: Mapping[str, Callable[[Path], Call]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compares what other runtimes give for each image with ONNX Runtime's.

    Args:
        proto: a graph of `to_onnx`, in any layout; counts of spikes are added where it has none.
        images: normalised, float32 [N, C, H, W], or what its encoding takes.
        creates: from the name of each runtime to a function from a file to what runs it.

    Yields:
        The name of a runtime, and images (N); same_class: how many have ONNX Runtime's class; differing_counts: the sum
        of all differences of counts (image, layer, time step) as a fraction of all spikes; spikes: all spikes as a
        multiple of ONNX Runtime's; worst_layer and worst_layer_spikes, the same for the layer farthest from 1;
        fractions: counts that are no whole number; not_finite: values that are no number, of which all that is counted
        is None. Or error: what the runtime says.
    """
    counted = add_spike_counts(proto)
    names = [output.name for output in counted.graph.output]
    outputs = [name for name in names if name == "logits" or name.startswith(PREFIX)]
    expected = _outputs(Runner(counted), images, outputs, "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(counted, file := Path(folder) / "model.onnx")
        for name, create in creates.items():
            try:
                runner = Runner(counted, create=lambda *_, **__: Session(create(file)))  # noqa: B023
                found = _outputs(runner, images, outputs, name)
            except Exception as error:  # of a runtime that nobody has seen before
                cause = error.__cause__ or error
                yield name, {"error": f"{type(cause).__name__}: {one_line(cause)}"[:_LONGEST]}
            else:
                yield name, _differences(expected, found)


def _outputs(run: Runner, images: NDArray[np.float32], outputs: list[str], name: str) -> dict[str, NDArray[np.float64]]:
    chunks = tqdm(range(len(images)), desc=name, disable=None, leave=False)
    each = [run(images[i : i + 1], outputs) for i in chunks]
    return {key: np.concatenate([np.asarray(row[i], np.float64) for row in each]) for i, key in enumerate(outputs)}


def _differences(expected: dict[str, NDArray[np.float64]], found: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    logits, others = expected["logits"], found["logits"]
    layers = {key.removeprefix(PREFIX): (expected[key], found[key]) for key in expected if key != "logits"}
    total = sum(a.sum() for a, _ in layers.values())
    share = {layer: _ratio(b.sum(), a.sum()) for layer, (a, b) in layers.items() if a.any()}
    far = {layer: np.inf if times is None else abs(times - 1) for layer, times in share.items()}
    worst = max(far, key=lambda layer: far[layer], default=None)
    return {
        "images": len(logits),
        "same_class": int((logits.argmax(1) == others.argmax(1)).sum()),
        "differing_counts": _ratio(sum(np.abs(a - b).sum() for a, b in layers.values()), total),
        "spikes": _ratio(sum(b.sum() for _, b in layers.values()), total),
        "worst_layer": worst,
        "worst_layer_spikes": share[worst] if worst else None,
        "fractions": int(sum((np.isfinite(b) & (b != np.rint(b))).sum() for _, b in layers.values())),
        "not_finite": int(sum((~np.isfinite(b)).sum() for b in (others, *(b for _, b in layers.values())))),
    }


def _ratio(value: Any, total: Any) -> float | None:
    return float(value / total) if total and np.isfinite(value) else None


def said(found: dict[str, Any]) -> str:
    """Returns a comparison for people."""
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
