"""Measure checkpoints: accuracy, spikes, operations, energy in PyTorch, then as graphs in ONNX Runtime.

Each gives one record, DIR/<dataset>/<name>_<weights>_<forms>.json, for `add`; a later one of the same forms takes its
place. Data set and images are those of its training by default. Latency is of batch 1 on one thread: measure on a
machine that does nothing else.
"""

import argparse
import sys
from pathlib import Path

from zoo.data import list_datasets
from zoo.data.folder import PREFIX
from zoo.errors import ZooError
from zoo.files import check_writable, user_path, write_json
from zoo.load import BUNDLED
from zoo.plugins import add_plugin_option

from ..results import form_of, name_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    text = "a pretrained model's name, a run directory, hf-hub:ORG/NAME, or an .onnx file of `python -m export`"
    parser.add_argument("sources", metavar="NAME|RUN|ONNX", nargs="*", help=text)
    parser.add_argument("--all", action="store_true", help="every checkpoint that comes with the zoo")
    add_how(parser)
    parser.add_argument(
        "--precision", nargs="*", default=["fp32", "int8"], metavar="P",
        help="of the graphs, fp32, fp16 or int8 (fp32 int8); none without",
    )  # fmt: skip
    text = "only the first N test images (all): to try it, as the board takes no part of a test set"
    parser.add_argument("--limit", type=int, default=0, metavar="N", help=text)
    parser.add_argument(
        "--out", type=user_path, default=Path("measured"), metavar="DIR", help="where records go (measured)"
    )
    add_plugin_option(parser)


def add_how(parser: argparse.ArgumentParser) -> None:
    """The options that `verify` shares."""
    parser.add_argument("--dataset", help=f"{', '.join([*list_datasets(), f'{PREFIX}DIR'])} (that of the training)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with torchvision's CIFAR files (SNNZOO_DATA)")
    parser.add_argument("--runs", type=int, default=50, metavar="N", help="timed runs of a graph (50)")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="images at a time in PyTorch (256)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="of PyTorch: cuda if there")


def run(options: argparse.Namespace) -> None:
    """Measure one after the other; what was measured is written at once."""
    from ..measure import check_asked, measure, said  # PyTorch's exporter and ONNX Runtime take seconds

    check_asked(options.precision, options.runs)  # first, as it may have taken a name for its own
    sources = options.sources + (sorted(folder.name for folder in BUNDLED.glob("*.*/")) if options.all else [])
    if not sources:
        raise ZooError("nothing to measure: name a checkpoint, a run directory or an .onnx file, or give --all")
    if options.limit < 0 or options.batch_size < 1:
        raise ZooError(f"--limit must be 0 or more, --batch-size 1 or more, not {options.limit}, {options.batch_size}")
    check_writable(options.out / "dataset" / "record.json")
    for place, source in enumerate(sources, 1):
        print(f"[{place}/{len(sources)}] {source}", file=sys.stderr, flush=True)
        result = measure(
            source, options.dataset, options.data_dir, precisions=options.precision, limit=options.limit,
            runs=options.runs, batch_size=options.batch_size, device=options.device,
        )  # fmt: skip
        forms = [form.replace(" flat", "").replace(" ", "-").lower() for form in map(form_of, result["parts"])]
        name = "_".join([name_of(result), result["weights_sha256"][:8], *forms])
        file = write_json(options.out / result["dataset"] / f"{name}.json", result)
        print(f"{said(result)}\n-> {file}", flush=True)
