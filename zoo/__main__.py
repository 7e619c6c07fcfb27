"""What is in the zoo: `python -m zoo list`, `python -m zoo info sresnet19_gs`."""

import argparse
import fnmatch
import json
import re
from collections.abc import Iterable
from typing import Any

from .errors import CommandParser, one_of, run_command, shown, text_table
from .names import (
    architectures,
    check_name,
    keywords,
    measured,
    plain_name,
    pretrained_names,
    references,
    sizes,
    split_name,
)
from .plugins import add_plugin_option

_SCALES = {
    "weight": "the weight gradient of each time step",
    "window": "the weight gradient of the whole window",
    "error": "the error that the weight gradient is computed from",
    "error_down": "the error, for the weight gradient and as it is passed down",
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
  checkpoints        tags that create_model("NAME.TAG", pretrained=True) loads; below, what each was measured to do on
                     its whole test set, and the median time of one image in its float32 ONNX file, batch 1, one thread;
                     machines whose processors share a name may differ twofold

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
    arguments = parser.parse_args(argv)
    known = architectures()
    if arguments.command == "list":
        for pattern in arguments.patterns:
            if not fnmatch.filter(known, pattern):
                raise one_of("model", pattern, known)
    else:
        rules = _keywords(arguments)["scaling"]
        if arguments.name not in rules:
            if (architecture := split_name(arguments.name)[0]) not in known:
                raise one_of("model or rule", architecture, [*known, *rules])
            check_name(arguments.name)
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Lists or describes what is in the zoo; PyTorch is loaded for what is not in its files alone."""
    if arguments.command == "info":
        found = describe(arguments.name)
        print(json.dumps(found, indent=2) if arguments.json else _details(found))
        return
    matching = {name for pattern in arguments.patterns or ["*"] for name in fnmatch.filter(architectures(), pattern)}
    models = [summary(name) for name in sorted(matching, key=_natural)]
    found = {"models": models, "keywords": _keywords(arguments)}
    print(json.dumps(found, indent=2) if arguments.json else _listing(**found, published=arguments.published))


def main(argv: list[str] | None = None) -> None:
    run(parse(argv))


def _keywords(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the names that keywords take, with those of a plugin, if there is one."""
    if "plugin" not in arguments:
        return keywords()
    from .models.catalogue import keyword_names

    return keyword_names()


def summary(name: str, **kwargs: Any) -> dict[str, Any]:
    """Returns the row of an architecture, without tag, in a list; keywords as for `create_model`.

    JSON values: model; params, dense_operations, timesteps, input_size as `zoo.models.catalogue.count` has them;
    pretrained, from the names of its checkpoints to what `zoo.names.measured` says of them, None without a row;
    references.
    """
    size = None if kwargs else sizes().get(plain_name(name))
    if size is None:
        from .models.catalogue import count

        size = count(name, **kwargs)
    trained = sorted((other for other in pretrained_names() if split_name(other)[0] == name), key=_natural)
    return {
        "model": name, **size, "pretrained": {other: measured().get(other) for other in trained},
        "references": references(name),
    }  # fmt: skip


def describe(name: str) -> dict[str, Any]:
    """All that the zoo knows of a model (`zoo.model_info` and `summary`), with its tag as the bundled checkpoint was
    built, or of a rule of gradient scaling. Raises ZooError for an unknown name, or a network that does not run."""
    from .registry import bundled_args, model_info
    from .scaling.rules import CONTROLS, PRESETS

    if name in PRESETS or name in CONTROLS:
        rule = PRESETS.get(name)
        text = CONTROLS[name].__doc__ if rule is None else rule.text or rule.factor.__doc__
        scales = "what the rule scales that it is the control of, 'of'"
        if rule is not None:
            scales = _SCALES["window" if rule.window else rule.locality]
        return {"scaling": name, "description": (text or "").strip(), "scales": scales, "control": rule is None}
    return model_info(name) | summary(split_name(name)[0], **bundled_args(name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts svgg5 before svgg11."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _listing(models: list[dict[str, Any]], keywords: dict[str, list[str]], published: bool) -> str:
    head = ["model", "params (M)", "dense (M)", "T", "published", "checkpoints"]
    rows = [
        [
            row["model"],
            f"{row['params'] / 1e6:.2f}",
            f"{row['dense_operations'] / 1e6:,.1f}",
            str(row["timesteps"]),
            _range(row["references"]),
            ", ".join(split_name(name)[1] for name in row["pretrained"]) or "-",
        ]
        for row in models
    ]
    parts = [text_table(head, rows, {1, 2, 3})]
    if published:  # a twin has the references of its plain twin: say each once
        parts += _published({id(reference): reference for row in models for reference in row["references"]}.values())
    parts.append("\n".join(f"{keyword}: {', '.join(names)}" for keyword, names in keywords.items()))
    trained = {name: row for model in models for name, row in model["pretrained"].items() if row}
    if trained:
        parts.append(f"Measured here, of CIFAR's classes in images of 32 x 32 pixels:\n\n{_trained(trained)}")
    return "\n\n".join(parts)


def _trained(rows: dict[str, dict[str, Any]]) -> str:
    """Returns a table of checkpoints, the best of each data set first."""
    head = ["checkpoint", "data", "top-1 (%)", "params (M)", "T", "spikes/image", "ms", "processor"]
    cells = [
        [
            name, row["dataset"], f"{row['top1']:.2f}", f"{row['params'] / 1e6:.2f}", str(row["timesteps"]),
            f"{row['spikes_per_image']:,.0f}", f"{row['latency_ms']:.2f}" if row["latency_ms"] else "-",
            row["cpu"] or "-",
        ]
        for name, row in sorted(rows.items(), key=lambda item: (item[1]["dataset"], -item[1]["top1"]))
    ]  # fmt: skip
    return text_table(head, cells, range(2, 7))


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
