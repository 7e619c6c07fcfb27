"""Measures which form of the flat graph ONNX Runtime runs fastest: `python -m export.studies.measure_forms NAME ...`.

Spikes as a comparison and a cast or as a steep HardSigmoid; time folded into the batch or convolutions for each step;
batch normalisation folded into the convolutions or behind them: five graphs of one network with the same results, the
last one that of `build_graph`. They take turns; what counts is the ratio of medians within a run, on whatever machine.
"""

from typing import Any

import onnx
from torch import nn

import zoo
from zoo.errors import CommandParser, run_command
from zoo.files import check_writable, write_json
from zoo.provenance import provenance

from ..layouts import finished, folded, unrolled
from ..network import take_apart
from ..timing import Settings, graph_of, settings, time_all


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(
        prog="python -m export.studies.measure_forms", description="Time the forms of the flat graph."
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="architectures, with or without a tag")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="batch sizes (1 8)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each form (5)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="timed runs a turn (20)")
    parser.add_argument("--json", metavar="FILE", help="write the measurement here")
    args = parser.parse_args(argv)
    asked = settings(batch_sizes=args.batch, rounds=args.rounds, runs=args.rounds * args.runs)
    if args.json:
        check_writable(args.json)
    networks = {}
    for name in args.names:
        networks[name] = measure(name, asked)
        for batch, found in networks[name].items():
            ratios = ", ".join(f"{form} {row['ratio']:.3f}" for form, row in found.items())
            print(f"{name}, batch {batch}: {ratios}")
    if args.json:
        write_json(args.json, {"threads": 1, "networks": networks} | provenance())


def measure(name: str, asked: Settings) -> dict[str, dict[str, Any]]:
    """Returns for each batch size the median milliseconds of each form, and their ratio to the first one's."""
    graphs = forms_of(zoo.create_model(name, pretrained="." in name).eval())
    rows = time_all([graph_of(proto, form) for form, proto in graphs.items()], asked)
    found = {}
    for i, batch in enumerate(asked.batch_sizes):
        medians = {form: times[i]["p50_ms"] for form, times in zip(graphs, rows, strict=True)}
        first = next(iter(medians.values()))
        found[str(batch)] = {form: {"p50_ms": median, "ratio": median / first} for form, median in medians.items()}
    return found


def forms_of(model: nn.Module) -> dict[str, onnx.ModelProto]:
    """Returns each form's graph of a network."""
    whole, single = take_apart(model, all_steps=True), take_apart(model, all_steps=False)
    behind = take_apart(model, all_steps=False, fold_norms=False)
    return {
        "folded, comparison": finished(whole, folded(whole)),
        "folded, HardSigmoid": finished(whole, folded(whole.with_steep_spikes())),
        "per step, comparison": finished(single, unrolled(single)),
        "per step, HardSigmoid": finished(single, unrolled(single.with_steep_spikes())),
        "per step, HardSigmoid, norms behind": finished(behind, unrolled(behind.with_steep_spikes())),
    }


if __name__ == "__main__":
    run_command(main)
