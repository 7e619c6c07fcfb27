"""`snn-zoo COMMAND ...`: every command of the project by one name, from any folder; what it runs is imported then."""

import contextlib
import importlib
import importlib.util
import io
import os
import re
import sys
from difflib import get_close_matches
from reprlib import repr as shortened
from types import ModuleType
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command: what it does, the module whose `run` it is, the function MODULE:NAME that reads the user's words, and
    what comes before these."""

    text: str
    module: str
    parse: str
    words: tuple[str, ...] = ()

    @property
    def long_form(self) -> str:
        """The command without snn-zoo, `python -m ...`."""
        return " ".join(["python -m", self.module.removesuffix(".__main__"), *self.words])


_PACKAGES = ("zoo", "export")
_ZOO = "zoo.__main__:parse"
COMMANDS = {
    "predict": Command("classify image files", "recipes.predict", "recipes.commands:parse_predict"),
    "finetune": Command(
        "train a trained network further, on images of yours", "recipes.finetune", "recipes.commands:parse_finetune"
    ),
    "export": Command("write a verified ONNX graph", "export.__main__", "export.commands:parse_export"),
    "demo": Command("a page that runs networks in a browser", "export.demo.__main__", "export.commands:parse_demo"),
    "list": Command("the networks, their checkpoints, the names that keywords take", "zoo.__main__", _ZOO, ("list",)),
    "info": Command("one network or rule in detail", "zoo.__main__", _ZOO, ("info",)),
    "train": Command("train a network from a recipe", "recipes.train", "recipes.commands:parse_train"),
    "validate": Command(
        "accuracy and spikes on a whole test set", "recipes.validate", "recipes.commands:parse_validate"
    ),
    "compare": Command("results side by side", "recipes.compare", "recipes.commands:parse_compare"),
    "ablate": Command("train every arm of a plan with every seed", "recipes.ablate", "recipes.commands:parse_ablate"),
    "health": Command(
        "does a network learn, do all of its layers spike", "recipes.health", "recipes.commands:parse_health"
    ),
    "bench": Command("time a training step or an inference", "recipes.bench", "recipes.commands:parse_bench"),
    "bench-ort": Command(
        "accuracy, spikes and latency of a graph in ONNX Runtime", "export.bench_ort", "export.commands:parse_bench"
    ),
    "leaderboard": Command(
        "measure, keep what was measured, render tables and pages", "leaderboard.__main__", "leaderboard.__main__:parse"
    ),
    "push": Command("publish a run on a Hub", "zoo.hub.__main__", "zoo.commands:parse_hub", ("push",)),
    "pull": Command("get a published checkpoint", "zoo.hub.__main__", "zoo.commands:parse_hub", ("pull",)),
}


def main(argv: list[str] | None = None) -> None:
    """Runs a command. PyTorch is loaded when its words were read and checked, and not for --help."""
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
    for package in _PACKAGES:
        _add_unloaded(package)
    from zoo.errors import ZooError, run_command

    def work(argv: list[str] | None) -> None:
        if any(word.startswith("--plugin") for word in words):  # which may import anything
            _initialise()
        module, _, function = command.parse.partition(":")
        parsed = getattr(importlib.import_module(module), function)(argv)
        if command.words != ("list",):  # which reads files alone, and what it imports where these do not tell
            _initialise()
        importlib.import_module(command.module).run(parsed)

    def run(argv: list[str] | None) -> None:
        if {"-h", "--help"}.isdisjoint(words):
            try:
                work(argv)
            except ZooError as error:
                raise ZooError(short_forms(str(error))) from error
        else:
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
                work(argv)
            usage, gap, rest = out.getvalue().partition("\n\n")
            shorter = short_forms(usage)
            # The later lines of a usage begin below its first argument.
            _print(shorter.replace("\n" + " " * (len(usage) - len(shorter)), "\n") + gap + short_forms(rest))

    run_command(run, [*command.words, *words])


class _Unloaded(ModuleType):
    """A package before its __init__, which loads PyTorch: modules of it that do not can be imported already, and to ask
    it for anything else loads it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _initialise()
        return getattr(self, name)


def _add_unloaded(package: str) -> None:
    spec = importlib.util.find_spec(package)
    if package not in sys.modules and spec is not None:
        module = sys.modules[package] = _Unloaded(package)
        module.__spec__, module.__path__, module.__file__ = spec, spec.submodule_search_locations or [], spec.origin


def _initialise() -> None:
    """Runs the __init__ of what was left without."""
    for package in _PACKAGES:
        module = sys.modules.get(package)
        if type(module) is _Unloaded and module.__spec__ is not None and module.__spec__.loader is not None:
            module.__class__ = ModuleType  # type: ignore[assignment]
            module.__spec__.loader.exec_module(module)


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


if __name__ == "__main__":
    main()
