"""`python -m leaderboard COMMAND`: from measurements to the README's table and picture, a CSV file, a page."""

import argparse

from zoo.errors import CommandParser, run_command

from .commands import add, check, measure, render, serve, site, verify

COMMANDS = {
    "measure": measure,
    "add": add,
    "verify": verify,
    "check": check,
    "render": render,
    "site": site,
    "serve": serve,
}
"""Each a module of commands/: its docstring is the help, `arguments` takes a parser, `run` what was parsed."""

_EXAMPLES = """\
examples:
  python -m leaderboard measure runs/a                    accuracy, spikes, operations, latency: measured/*/*.json
  python -m leaderboard add measured/cifar10/*.json       check a record, copy it to its folder, render
  python -m leaderboard verify sresnet19_w16.t2_cifar10   measure a row again, and compare
  python -m leaderboard check                             is everything in order, and rendered?
  python -m leaderboard render                            render what is in leaderboard/results
  python -m leaderboard site                              build the page that shows all of it
  python -m leaderboard render --out board --readme none  try it without touching the checkout

python -m leaderboard COMMAND --help says more of each; leaderboard/README.md tells what a result file holds, what a
row must carry and how to submit one. Exit status: 0 done, 1 `check` found what is stale or `verify`
a number that is off, 2 bad input.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, see `python -m leaderboard --help`."""
    parser = CommandParser(
        prog="python -m leaderboard",
        description="Measure networks, keep the measurements, and render tables and pages from them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        text = (module.__doc__ or "").strip()
        own = commands.add_parser(
            name,
            help=text.splitlines()[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(own)
        own.set_defaults(run=module.run)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    arguments = parse(argv)
    arguments.run(arguments)


if __name__ == "__main__":
    run_command(main)
