"""Run a script of others, such as timm's train.py and validate.py, that then knows the names of the zoo, too:
`python -m zoo.script validate.py --model sresnet19_w16 ...`, or `torchrun ... -m zoo.script train.py ...`."""

import runpy
import sys
from pathlib import Path

import zoo  # registers the names

from .errors import ZooError, run_command


def main(argv: list[str] | None = None) -> None:
    """The command line: the script, and what it takes."""
    script, *arguments = (sys.argv[1:] if argv is None else argv) or [""]
    if not Path(script).is_file():
        raise ZooError(f"no script {script!r}: python -m {zoo.__name__}.script SCRIPT.py [its arguments]")
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    run_command(main)
