"""Render the README's table, accuracy_spikes.svg, leaderboard.csv, comparisons.md and CHANGES.md from the store.

The README needs the lines <!-- leaderboard:start --> and <!-- leaderboard:end -->; what is between them is replaced.
"""

import argparse

from ..board import Board, add_options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_options(parser)


def run(options: argparse.Namespace) -> None:
    """Read and check everything, render everything, then write: bad input leaves every file as it was."""
    board = Board.of(options)
    with board.locked():
        board.write(board.load())
