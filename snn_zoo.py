"""`snn-zoo COMMAND ...`: every command of the project by one name, from any folder; what it runs is imported then."""

import contextlib
import importlib
import io
import os
import re
import sys
from difflib import get_close_matches
from reprlib import repr as shortened
from typing import NamedTuple


class Command(NamedTuple):
    """A command: what it does, the module whose `main` it is, and what comes before the user's words."""

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
    "export": Command("write a verified ONNX graph", "export.__main__"),
    "bench-ort": Command("accuracy, spikes and latency of a graph in ONNX Runtime", "export.bench_ort"),
    "leaderboard": Command("measure, keep what was measured, render tables and pages", "leaderboard.__main__"),
    "list": Command("the networks, and the names that keywords take", "zoo.__main__", ("list",)),
    "info": Command("one network or rule in detail", "zoo.__main__", ("info",)),
    "push": Command("publish a run on a Hub", "zoo.hub.__main__", ("push",)),
    "pull": Command("get a published checkpoint", "zoo.hub.__main__", ("pull",)),
}


def main(argv: list[str] | None = None) -> None:
    """Runs a command. Without one, and for --help, PyTorch is not loaded."""
    name, *words = (sys.argv[1:] if argv is None else argv) or [""]
    if name in COMMANDS:
        _run(COMMANDS[name], words)
    elif name in ("-h", "--help"):
        _print(_help())
    else:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        wrong = f"unknown command {shortened(name)}{hint}" if name else "no command"
        print(f"error: {wrong} (known: {', '.join(COMMANDS)}; see snn-zoo --help)", file=sys.stderr)
        sys.exit(2)


def _run(command: Command, words: list[str]) -> None:
    from zoo.errors import ZooError, run_command  # which loads PyTorch, as zoo does

    def run(argv: list[str] | None) -> None:
        module = importlib.import_module(command.module)
        if {"-h", "--help"}.isdisjoint(words):
            try:
                module.main(argv)
            except ZooError as error:
                raise ZooError(short_forms(str(error))) from error
        else:
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
                module.main(argv)
            usage, gap, rest = out.getvalue().partition("\n\n")
            shorter = short_forms(usage)
            # The later lines of a usage begin below its first argument.
            _print(shorter.replace("\n" + " " * (len(usage) - len(shorter)), "\n") + gap + short_forms(rest))

    run_command(run, [*command.words, *words])


def short_forms(text: str) -> str:
    """Returns `text` with snn-zoo in place of `python -m ...`."""
    for name, command in COMMANDS.items():
        words = r"\s+".join(map(re.escape, command.long_form.split()))  # which a help may have in two lines
        text = re.sub(rf"{words}(?![\w.])", f"snn-zoo {name}", text)
    return text


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever read it has enough, as `head` has
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for what Python would still write at its end)


def _help() -> str:
    lines = [f"  {name:14}{command.text}" for name, command in COMMANDS.items()]
    usage = "usage: snn-zoo COMMAND ...\n\nA zoo of spiking neural networks: train, measure, export, publish."
    return "\n".join([usage, "", "commands:", *lines, "", "snn-zoo COMMAND --help says more of each."]) + "\n"
