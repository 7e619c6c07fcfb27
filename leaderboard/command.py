"""`snn-zoo COMMAND ...`: every command of the project by one name, from any folder.

It stands at the top of the chain, so it may name all that is below, and it imports a command's module only to run it.
To import PyTorch takes seconds: what can be said without it, the help of every command and the list of networks, is
read from answers/, which answers.py writes and a test compares with the commands themselves.
"""

import fnmatch
import importlib
import os
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as shortened
from typing import NamedTuple

ANSWERS = Path(__file__).resolve().parent / "answers"
HELP = "{}.help.txt"
LIST = "list.txt"


class Command(NamedTuple):
    """A command: the module whose `main` it is, and what comes before the user's words."""

    text: str
    module: str
    words: tuple[str, ...] = ()

    @property
    def long_form(self) -> str:
        """The command without snn-zoo, `python -m ...`."""
        return " ".join(["python -m", self.module.removesuffix(".__main__"), *self.words])


COMMANDS = {
    "train": Command("train a network from a recipe", "recipes.train"),
    "validate": Command("accuracy and spikes on a whole test set", "recipes.validate"),
    "predict": Command("classify image files", "recipes.predict"),
    "compare": Command("results side by side", "recipes.compare"),
    "ablate": Command("train every arm of a plan with every seed", "recipes.ablate"),
    "health": Command("does a network learn, do all of its layers spike", "recipes.health"),
    "bench": Command("time a training step or an inference", "recipes.bench"),
    "scaling-cost": Command("what cheap forms of gradient scaling cost", "recipes.scaling_cost"),
    "export": Command("write a verified ONNX graph", "export.__main__"),
    "bench-ort": Command("accuracy, spikes and latency of a graph in ONNX Runtime", "export.bench_ort"),
    "leaderboard": Command("measure, keep what was measured, render tables and pages", "leaderboard.__main__"),
    "list": Command("the networks, and the names that keywords take", "zoo.__main__", ("list",)),
    "info": Command("one network or rule in detail", "zoo.__main__", ("info",)),
    "push": Command("publish a run on a Hub", "zoo.hub.__main__", ("push",)),
    "pull": Command("get a published checkpoint", "zoo.hub.__main__", ("pull",)),
}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    name, *words = (sys.argv[1:] if argv is None else argv) or [""]
    asks = not {"-h", "--help"}.isdisjoint([name, *words])
    if name in COMMANDS:
        text = _help_of(name, words) if asks else _listed(words) if name == "list" else ""
        if not text:
            _run(COMMANDS[name], words)
    elif asks:
        text = _help()
    else:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        wrong = f"unknown command {shortened(name)}{hint}" if name else "no command"
        print(f"error: {wrong} (known: {', '.join(COMMANDS)}; see snn-zoo --help)", file=sys.stderr)
        sys.exit(2)
    _say(text)


def short_forms(text: str) -> str:
    """`text` with snn-zoo in place of `python -m ...`."""
    for name, command in COMMANDS.items():
        text = re.sub(rf"{re.escape(command.long_form)}(?![\w.])", f"snn-zoo {name}", text)
    return text


def _say(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever read it has enough, as `head` has
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for what Python would still write at its end)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        print(f"error: {error.strerror}: the output of this command", file=sys.stderr)
        sys.exit(2)


def _run(command: Command, words: list[str]) -> None:
    from zoo.errors import ZooError, run_command  # as the module, imports PyTorch

    def run(argv: list[str] | None) -> None:
        try:
            importlib.import_module(command.module).main(argv)
        except ZooError as error:
            raise ZooError(short_forms(str(error))) from error

    run_command(run, [*command.words, *words])


def _help_of(name: str, words: list[str]) -> str:
    """The help of a command, or of the one below it that the first word names."""
    known = {file.name for file in ANSWERS.iterdir()}
    below = HELP.format(f"{name}-{words[0]}")
    return (ANSWERS / (below if below in known else HELP.format(name))).read_text("utf-8")


def _listed(patterns: list[str]) -> str:
    """The list of networks, or those of some patterns; "" where only the command itself knows what to say."""
    table, rest = (ANSWERS / LIST).read_text("utf-8").split("\n\n", 1)
    head, *lines = table.splitlines()
    rows = {line.split()[0]: line for line in lines}
    found = [fnmatch.filter(rows, pattern) for pattern in patterns or ["*"]]
    if not all(found):
        return ""
    shown = [line for name, line in rows.items() if any(name in names for names in found)]
    return "\n".join([head, *shown]) + f"\n\n{rest}"


def _help() -> str:
    lines = [f"  {name:14}{command.text}" for name, command in COMMANDS.items()]
    usage = "usage: snn-zoo COMMAND ...\n\nA zoo of spiking neural networks: train, measure, export, publish."
    return "\n".join([usage, "", "commands:", *lines, "", "snn-zoo COMMAND --help says more of each."]) + "\n"
