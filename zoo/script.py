"""Run a script of others, such as timm's train.py and validate.py, that then knows the names of the zoo, too:
`python -m zoo.script validate.py --model sresnet19_w16 ...`, or `torchrun ... -m zoo.script train.py ...`."""

import argparse
import runpy
import sys
from pathlib import Path

import zoo as zoo  # which registers its names

from .errors import CommandParser, ZooError, run_command


def main(argv: list[str] | None = None) -> None:
    """Reads the command line: the script, and what it takes, which then stand in sys.argv and sys.path."""
    parser = CommandParser(prog="python -m zoo.script", description=__doc__)
    parser.add_argument("script", help="a Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what it takes")
    given = parser.parse_args(argv)
    if not Path(given.script).is_file():
        raise ZooError(f"no such script: {given.script}")
    sys.argv = [given.script, *given.arguments]
    sys.path[0] = str(Path(given.script).resolve().parent)


if __name__ == "__main__":
    run_command(main)
    runpy.run_path(sys.argv[0], run_name="__main__")  # by itself: its errors are its own
