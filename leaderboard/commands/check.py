"""Is everything in the store in order, and everything rendered? What the tests run over the committed store.

Writes nothing; exits with 1 and names what is stale if a rendered file is not current.
"""

import argparse
import sys

from ..board import Board, add_options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_options(parser)


def run(options: argparse.Namespace) -> None:
    """Check the store, then compare what it renders to with the files."""
    board = Board.of(options)
    if stale := board.stale(board.load()):
        print(f"stale: {', '.join(stale)}; run python -m leaderboard render", file=sys.stderr)
        sys.exit(1)
