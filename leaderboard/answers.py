"""What `snn-zoo` says without PyTorch, from the commands themselves: `python -m leaderboard.answers --render`."""

import contextlib
import importlib
import io
import os
import sys

from zoo.errors import CommandParser, run_command
from zoo.files import atomic_write

from .__main__ import COMMANDS as OF_BOARD
from .command import ANSWERS, COMMANDS, HELP, LIST, Command, short_forms

_COLUMNS = "100"


def render() -> dict[str, str]:
    """Every file of answers/, from its name to its text."""
    os.environ["COLUMNS"] = _COLUMNS
    helps = {HELP.format(name): _help(name) for name in COMMANDS}
    helps |= {HELP.format(f"leaderboard-{name}"): _help("leaderboard", name) for name in OF_BOARD}
    return helps | {LIST: _said(COMMANDS["list"])}


def _help(name: str, *below: str) -> str:
    usage, rest = _said(COMMANDS[name], *below, "--help").split("\n\n", 1)
    # The later lines of a usage begin below its first argument.
    forms = (" ".join([form, *below, ""]) for form in (COMMANDS[name].long_form, f"snn-zoo {name}"))
    before, now = (" " * len(f"usage: {form}") for form in forms)
    return short_forms(usage.replace(f"\n{before}", f"\n{now}") + "\n\n" + rest)


def _said(command: Command, *words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        importlib.import_module(command.module).main([*command.words, *words])
    return out.getvalue()


def _said_in(name: str, text: str | None) -> set[str] | list[str] | None:
    """What a file says: a list its words in their order, a help its words, as versions of Python lay it out unlike."""
    if text is None:
        return None
    return text.split() if name == LIST else set(text.replace(",", " ").split())


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(prog="python -m leaderboard.answers", description="What snn-zoo says without PyTorch.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--render", action="store_true", help="write every file of leaderboard/answers anew")
    action.add_argument("--check", action="store_true", help="write nothing: exit 1 if a file is not current")
    check, files = parser.parse_args(argv).check, render()
    there = {file.name: file.read_text("utf-8") for file in ANSWERS.glob("*.txt")}
    if check:
        stale = [
            name for name in sorted(files | there) if _said_in(name, files.get(name)) != _said_in(name, there.get(name))
        ]
        if stale:
            print(f"stale: {', '.join(stale)}; run python -m leaderboard.answers --render", file=sys.stderr)
            sys.exit(1)
        return
    for name, text in files.items():
        atomic_write(ANSWERS / name, text)
    for name in there.keys() - files:
        (ANSWERS / name).unlink()


if __name__ == "__main__":
    run_command(main)
