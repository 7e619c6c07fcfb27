"""Check result files, copy them to where they belong in the store, render.

All of them or none: a file that is refused, with the reason, leaves everything as it was.
"""

import argparse
from pathlib import Path

from ..board import Board, add_options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="result files")
    add_options(parser)


def run(options: argparse.Namespace) -> None:
    """Check, then write."""
    board = Board.of(options, must_exist=False)
    with board.locked():
        board.add(options.files)
