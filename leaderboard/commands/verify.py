"""Measure a row again, and compare.

Top-1 must be within 0.1 points, spikes, operations and energy within 0.1 %; exits with 1 if a number is further off.
Latency is told, not judged. A row is named as on the board, <dataset>/<model>.<tag>, or <model>.<tag>.
"""

import argparse
import sys
from pathlib import Path

from recipes.lineage import Run
from zoo.data import list_datasets
from zoo.errors import ZooError, one_of
from zoo.files import check_writable, write_json
from zoo.load import find_checkpoint
from zoo.plugins import add_plugin_option

from ..board import Board, add_results_option
from ..results import Results, name_of
from ..row import Row
from ..rows import rows
from ..verify import compare, measured, row_of, table
from .measure import add_how


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("row", metavar="ROW", help="of the board")
    text = "where its weights are: a run directory or hf-hub:ORG/NAME (default: the pretrained model of its name)"
    parser.add_argument("--checkpoint", metavar="RUN", help=text)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the new measurement here")
    add_how(parser)
    add_results_option(parser)
    parser.set_defaults(out=None, readme="none")
    add_plugin_option(parser)


def run(options: argparse.Namespace) -> None:
    """Measure, then compare."""
    from ..measure import check_asked, measure

    results = Board.of(options).load()
    board = {row.path: row for row in rows(results)}
    found = [row for path, row in board.items() if options.row in (path, row.name)]
    if len(found) > 1:
        raise ZooError(f"{options.row} is a row of several data sets: give {' or '.join(row.path for row in found)}")
    if not found:
        raise one_of("row", options.row, sorted(board))
    (row,) = found
    if Path(options.checkpoint or "").suffix == ".onnx":
        raise ZooError(f"a row is measured again from its weights, and {options.checkpoint} is a graph: see --help")
    precisions = sorted({graph.precision for graph in row.graphs})
    check_asked(precisions, options.runs)
    if options.json:
        check_writable(options.json)
    source = options.checkpoint or row.name
    checkpoint = Run(find_checkpoint(source).config)
    if weights := checkpoint.config.get("weights_sha256"):
        _of_checkpoint(results, row, checkpoint.name, weights)  # before long work, too
    # A folder's name does not tell where it is; its network does.
    known = row.dataset if row.dataset in list_datasets() else None
    result = measure(
        source, options.dataset or known, options.data_dir, precisions=precisions,
        runs=options.runs, batch_size=options.batch_size, device=options.device,
    )  # fmt: skip
    if options.json:
        write_json(options.json, result)
    before = _of_checkpoint(results, row, name_of(result), result["weights_sha256"])
    if result["dataset"] != row.dataset:
        raise ZooError(f"{row.path} is of {row.dataset}, and this of {result['dataset']}: --dataset names the row's")
    if before.images != result["images"]:
        raise ZooError(f"{row.path} is of {before.images} test images, here are {result['images']}")
    lines = compare(before, measured(result))
    print(table(lines))
    if missed := [line.number for line in lines if line.verdict == "MISS"]:
        print(f"not as on the board: {', '.join(missed)}", file=sys.stderr)
        sys.exit(1)


def _of_checkpoint(results: Results, row: Row, name: str, weights: str) -> Row:
    """What a row says of one checkpoint."""
    if name != row.name or not (found := row_of(results, weights, row.dataset)):
        other = f"this is {name} with weights {weights[:12]}..."
        raise ZooError(f"{other}, which is not in {row.path}: --checkpoint names where the row's weights are")
    return found
