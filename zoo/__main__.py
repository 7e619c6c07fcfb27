"""What is in the zoo: `python -m zoo list`, `python -m zoo info sresnet19_gs`."""

import argparse
import json
from collections.abc import Iterable
from typing import Any

from timm.models import split_model_name_tag

from .errors import CommandParser, one_of, run_command, shown, text_table
from .models.catalogue import describe, summary
from .neurons import list_neurons
from .neurons.encoding import list_encodings
from .neurons.norm import list_norms
from .neurons.surrogate import list_surrogates
from .plugins import add_plugin_option
from .registry import is_model, list_models
from .scaling.spec import list_scalings

_KEYWORDS = {
    "scaling": list_scalings,
    "neuron": list_neurons,
    "surrogate": list_surrogates,
    "norm": list_norms,
    "encoding": list_encodings,
}
_LIST = """\
examples:
  python -m zoo list                      everything
  python -m zoo list 'sresnet19*'         some of it; quote the wildcards
  python -m zoo list --plugin mine.py     with the models and rules that your file registers
  python -m zoo list --json | jq '.models[] | select(.params < 1e6) | .model'

columns:
  params (M)         trainable parameters with the default number of classes
  dense (M)          multiply-accumulates of convolutions and linear layers for one image and one time step, were
                     nothing sparse; a spiking network does a share of them
  T                  time steps unless you say timesteps=...
  published          lowest to highest top-1 in % that others report for the network, CIFAR-10 and CIFAR-100; with
                     --published, each with its citation. Methods and recipes differ, and none was measured here
  checkpoints        tags that create_model("NAME.TAG", pretrained=True) loads

A name that ends in _gs is the same network, trained with gradient scaling; _wN has N channels in its first stage.
"""
_INFO = """\
examples:
  python -m zoo info svgg11
  python -m zoo info sresnet19_w16_gs --json
  python -m zoo info causal_trace                    a rule of gradient scaling
  python -m zoo info my_model --plugin mine.py       of your own

dense_operations are the multiply-accumulates of convolutions and linear layers for one image and one time step, were
nothing sparse; kernel says which code runs the neurons on this machine.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line, see `python -m zoo --help`."""
    parser = CommandParser(prog="python -m zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    what = "the models of the zoo, what others published of them, and the names that keywords take"
    listing = commands.add_parser("list", help=what, description=f"List {what}.", epilog=_LIST, formatter_class=raw)
    listing.add_argument("patterns", metavar="PATTERN", nargs="*", help="wildcards over names of models (default: all)")
    what = "one model, or one rule of gradient scaling, in detail"
    info = commands.add_parser("info", help=what, description=f"Show {what}.", epilog=_INFO, formatter_class=raw)
    info.add_argument("name", metavar="NAME", help="a model, with or without .tag, or a rule")
    listing.add_argument("--published", action="store_true", help="also every published result, with its citation")
    for command in (listing, info):
        command.add_argument("--json", action="store_true", help="print JSON, which has more than the table")
        add_plugin_option(command)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Lists or describes what is in the zoo."""
    arguments = parse(argv)
    if arguments.command == "info":
        name = arguments.name
        if name not in list_scalings() and not is_model(name):
            raise one_of("model or rule", split_model_name_tag(name)[0], [*list_models(), *list_scalings()])
        found = describe(name)
    else:
        for pattern in arguments.patterns:
            if not list_models([pattern]):
                raise one_of("model", pattern, list_models())
        keywords = {keyword: names() for keyword, names in _KEYWORDS.items()}
        found = {"models": [summary(name) for name in list_models(arguments.patterns or "")], "keywords": keywords}
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(_details(found) if arguments.command == "info" else _listing(**found, published=arguments.published))


def _listing(models: list[dict[str, Any]], keywords: dict[str, list[str]], published: bool) -> str:
    head = ["model", "params (M)", "dense (M)", "T", "published", "checkpoints"]
    rows = [
        [
            row["model"],
            f"{row['params'] / 1e6:.2f}",
            f"{row['dense_operations'] / 1e6:,.1f}",
            str(row["timesteps"]),
            _range(row["references"]),
            ", ".join(split_model_name_tag(name)[1] for name in row["pretrained"]) or "-",
        ]
        for row in models
    ]
    parts = [text_table(head, rows, {1, 2, 3})]
    if published:  # a twin has the references of its plain twin: say each once
        parts += _published({id(reference): reference for row in models for reference in row["references"]}.values())
    parts.append("\n".join(f"{keyword}: {', '.join(names)}" for keyword, names in keywords.items()))
    return "\n\n".join(parts)


def _range(references: list[dict[str, Any]]) -> str:
    """Returns the lowest to highest published top-1 of both data sets."""
    ranges = []
    for dataset in ("cifar10", "cifar100"):
        values = [row[dataset] for row in references if row[dataset] is not None]
        ends = dict.fromkeys((min(values), max(values))) if values else []
        ranges.append("-".join(f"{value:.1f}" for value in ends) or "-")
    return " / ".join(ranges) if references else "-"


def _published(references: Iterable[dict[str, Any]]) -> list[str]:
    """Returns a table of published results with its heading, or nothing where there is none."""
    head = ["model", "method", "network", "T", "CIFAR-10", "CIFAR-100", "citation (read in)"]
    rows = [
        [
            *(row[key] for key in ("model", "method", "network")),
            str(row["T"] or "?"),
            *(
                "-"
                if row[dataset] is None
                else f"{row[dataset]:.2f}{'*' if dataset in row['strong_augmentation'] else ''}"
                for dataset in ("cifar10", "cifar100")
            ),
            f"{row['citation']} ({row['read_in']})",
        ]
        for row in references
    ]
    if not rows:
        return []
    augmented = "* = known to use AutoAugment, Cutout, CutMix or Mixup"
    heading = f"Published by others, top-1 in %, not measured here; {augmented}:"
    return [f"{heading}\n\n{text_table(head, rows, {3})}"]


def _details(found: dict[str, Any]) -> str:
    """Returns everything but the published results as "key: value" lines, then those."""
    lines = []
    for key, value in found.items():
        if key == "references":
            continue
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        elif isinstance(value, dict):
            value = json.dumps(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            value = f"{value:,}"
        lines.append(f"{key + ':':18}{shown(value, 2000) if value != '' else '-'}")
    return "\n\n".join(["\n".join(lines), *_published(found.get("references", []))])


if __name__ == "__main__":
    run_command(main)
