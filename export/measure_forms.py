"""Which form of the flat graph ONNX Runtime runs fastest: `python -m export.measure_forms NAME ... --json FILE`.

Spikes as a comparison and a cast or as a steep HardSigmoid; time folded into the batch or convolutions for each step;
batch normalisation folded into the convolutions or behind them: five graphs of one network with the same results, the
last one that of `build_graph`. Their sessions take turns, one alive at a time, over several rounds;
what counts is the ratio of medians within a run, on whatever machine.
"""

import time
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from torch import nn

import zoo
from zoo.errors import CommandParser, run_command
from zoo.files import check_writable, write_json
from zoo.provenance import provenance

from .assembly import Assembly, make_model
from .layouts import folded, unrolled
from .parts import Parts, take_apart
from .session import create_session
from .timing import check_settings
from .trace import OPSET

_WARM_UP = 3


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(prog="python -m export.measure_forms", description="Time the forms of the flat graph.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="architectures, with or without a tag")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="batch sizes (1 8)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each form (5)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="timed runs a turn (20)")
    parser.add_argument("--json", metavar="FILE", help="write the measurement here")
    args = parser.parse_args(argv)
    check_settings(args.batch, [1], args.runs, args.rounds)
    if args.json:
        check_writable(args.json)
    networks = {}
    for name in args.names:
        networks[name] = {str(n): measure(name, n, args.rounds, args.runs) for n in args.batch}
        for batch, found in networks[name].items():
            ratios = ", ".join(f"{form} {row['ratio']:.3f}" for form, row in found.items())
            print(f"{name}, batch {batch}: {ratios}")
    if args.json:
        write_json(args.json, {"threads": 1, "networks": networks} | provenance())


def measure(name: str, batch: int, rounds: int, runs: int) -> dict[str, Any]:
    """Median milliseconds of each form, and their ratio to the first one's."""
    model = zoo.create_model(name, pretrained="." in name).eval()
    graphs = forms_of(model)
    x = np.random.default_rng(0).standard_normal((batch, *model.pretrained_cfg["input_size"]), dtype=np.float32)
    times: dict[str, list[float]] = {form: [] for form in graphs}
    for _ in range(rounds):
        for form, graph in graphs.items():
            session = create_session(graph, threads=1)
            for run in range(_WARM_UP + runs):
                begin = time.perf_counter()
                session.run(["logits"], {"input": x})
                if run >= _WARM_UP:
                    times[form].append(1000 * (time.perf_counter() - begin))
            del session
    medians = {form: float(np.median(values)) for form, values in times.items()}
    first = next(iter(medians.values()))
    return {form: {"p50_ms": median, "ratio": median / first} for form, median in medians.items()}


def forms_of(model: nn.Module) -> dict[str, bytes]:
    """Each form's graph of a network."""
    whole, single = take_apart(model, all_steps=True), take_apart(model, all_steps=False)
    behind = take_apart(model, all_steps=False, fold_norms=False)
    return {
        "folded, comparison": _graph(whole, folded(whole)),
        "folded, HardSigmoid": _graph(whole, folded(whole.with_steep_spikes())),
        "per step, comparison": _graph(single, unrolled(single)),
        "per step, HardSigmoid": _graph(single, unrolled(single.with_steep_spikes())),
        "per step, HardSigmoid, norms behind": _graph(behind, unrolled(behind.with_steep_spikes())),
    }


def _graph(parts: Parts, g: Assembly) -> bytes:
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *parts.size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", parts.classes])]
    return make_model(g, inputs, outputs, {"": OPSET}, 10).SerializeToString()


if __name__ == "__main__":
    run_command(main)
