"""Build the page of the board: one file that opens in a browser and needs no network.

A table to sort and filter, what accuracy costs in spikes, operations, energy and latency, a section for each network,
the ablations of gradient scaling. Needs the extra: pip install -e '.[site]' in the checkout.
"""

import argparse
from pathlib import Path

from zoo.errors import ZooError
from zoo.files import atomic_write, user_path
from zoo.plugins import add_plugin_option

from ..board import Board, add_results_option
from ..references import published
from ..rows import rows


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_results_option(parser)
    parser.set_defaults(readme="none")
    text = "the page is DIR/index.html (default: site, in the working directory)"
    parser.add_argument("--out", metavar="DIR", type=user_path, default=Path("site"), help=text)
    add_plugin_option(parser)


def run(options: argparse.Namespace) -> None:
    """Build, then write."""
    print(atomic_write(options.out / "index.html", build(options)))


def build(options: argparse.Namespace) -> str:
    """The page's text.

    Raises:
        ZooError: a bad result, or the libraries that it is made with are not installed.
    """
    table = [*rows(Board.of(options).load()), *published()]
    try:
        from ..site.page import page  # here, as nothing else needs its libraries
    except ModuleNotFoundError as error:
        raise ZooError(f"the page needs {error.name}: pip install -e '.[site]' in the checkout") from error
    return page(table)
