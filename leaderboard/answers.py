"""What `snn-zoo` says without PyTorch, from the commands themselves: `python -m leaderboard.answers --render`."""

import contextlib
import importlib
import io
import os
import sys
from unittest import mock

from zoo.errors import CommandParser, run_command
from zoo.files import atomic_write

from .command import ANSWERS, COMMANDS, LIST, Command, short_forms

_WIDTH = "100"


def render() -> dict[str, str]:
    """Every file of answers/, from its name to its text."""
    files = {f"{name}.txt" if name != "list" else "list_help.txt": _help(name) for name in COMMANDS}
    return files | {LIST: _said(COMMANDS["list"])}


def _help(name: str) -> str:
    long, text = COMMANDS[name].long_form, _said(COMMANDS[name], "--help")
    usage, rest = text.split("\n\n", 1)
    # Its later lines begin below its first argument.
    before, now = (" " * len(f"usage: {command} ") for command in (long, f"snn-zoo {name}"))
    return short_forms(usage.replace(f"\n{before}", f"\n{now}") + "\n\n" + rest)


def _said(command: Command, *words: str) -> str:
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.suppress(SystemExit),
        mock.patch.dict(os.environ, COLUMNS=_WIDTH),
    ):
        importlib.import_module(command.module).main([*command.words, *words])
    return out.getvalue()


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(prog="python -m leaderboard.answers", description="What snn-zoo says without PyTorch.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--render", action="store_true", help="write every file of leaderboard/answers anew")
    action.add_argument("--check", action="store_true", help="write nothing: exit 1 if a file is not current")
    check, files = parser.parse_args(argv).check, render()
    there = {file.name: file.read_text() for file in ANSWERS.glob("*.txt")}
    if check and (stale := sorted(name for name in files | there if files.get(name) != there.get(name))):
        print(f"stale: {', '.join(stale)}; run python -m leaderboard.answers --render", file=sys.stderr)
        sys.exit(1)
    for name in [] if check else files:
        atomic_write(ANSWERS / name, files[name])
    for name in [] if check else there.keys() - files:
        (ANSWERS / name).unlink()


if __name__ == "__main__":
    run_command(main)
