"""When skipping zeros pays: `python -m export.studies.event_sweep`, one 3 x 3 convolution at many firing rates.

Spikes are drawn: each channel of a pixel spikes with the firing rate, and the steps are as correlated as asked (each
repeats a common draw with the square root of that probability, and is its own otherwise). The kernel (event.cpp) with
int16 weights, and with float32 ones as zoo.event_driven has it, takes turns with ONNX Runtime's convolutions of the
same maps, float32 and int8 (QLinearConv, channels last), whose time does not depend on the spikes. All write currents;
the kernel's could have been spikes. What counts is the fastest run of each, which a busy machine disturbs least. Writes
export/reports/event_sweep.json and .svg, in three minutes.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from zoo.errors import CommandParser, ZooError, run_command
from zoo.files import atomic_write, check_writable, write_json
from zoo.kernels.event import EventConv, list_instruction_sets
from zoo.provenance import provenance

from ..commands import settings
from ..timing import Input, TimedGraph, time_all

REPORT = Path(__file__).parents[1] / "reports" / "event_sweep"
CHANNELS = [16, 32, 64, 128, 256, 512]
RATES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6]
CORRELATIONS = [0.0, 0.5, 0.9]
_DOMAIN = "com.microsoft"


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m export.studies.event_sweep", description="Time when skipping zeros pays.")
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS, metavar="N", help="in and out (16 to 512)")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, metavar="R", help="firing rates (0.01 to 0.6)")
    text = "correlation between time steps (0 0.5 0.9)"
    parser.add_argument("--correlations", type=float, nargs="+", default=CORRELATIONS, metavar="C", help=text)
    parser.add_argument("--timesteps", type=int, default=4, metavar="N", help="time steps (4)")
    parser.add_argument("--side", type=int, default=16, metavar="N", help="rows and columns of a map (16)")
    parser.add_argument("--runs", type=int, default=40, metavar="N", help="timed runs of each (40)")
    text = "write FILE.json and FILE.svg (export/reports/event_sweep)"
    parser.add_argument("--out", type=Path, default=REPORT, metavar="FILE", help=text)
    args = parser.parse_args(argv)
    for name, values in (("rates", args.rates), ("correlations", args.correlations)):
        if bad := [value for value in values if not 0 <= value <= 1]:
            raise ZooError(f"--{name} are from 0 to 1, not {bad[0]:g}")
    check_writable(args.out.with_suffix(".json"), args.out.with_suffix(".svg"))
    points = []
    for channels in args.channels:
        points += sweep(channels, args.rates, args.correlations, args.timesteps, args.side, args.runs)
        dense = {p["form"]: p["least_ms"] for p in points if p["channels"] == channels and p["rate"] is None}
        print(f"{channels} channels: {dense}", flush=True)
    result = {"schema": 1, "kind": "event_sweep", "timesteps": args.timesteps, "side": args.side, "kernel": 3}
    result |= {"instruction_set": list_instruction_sets()[-1], "points": points, **provenance()}
    write_json(args.out.with_suffix(".json"), result)
    print(atomic_write(args.out.with_suffix(".svg"), picture(result)))


def sweep(
    channels: int, rates: list[float], correlations: list[float], timesteps: int, side: int, runs: int
) -> list[dict[str, Any]]:
    """Times a convolution of so many channels.

    Returns:
        {channels, form, rate, correlation, least_ms, p50_ms, ms} for each form, rate and correlation: of "int16" and
        "float32" of the kernel, and of "ONNX Runtime float32" and "int8", whose rate and correlation are None.
    """
    draw = np.random.default_rng(channels)
    weight = draw.standard_normal((channels, channels, 3, 3), dtype=np.float32)
    maps = timesteps, channels, side, side
    subjects: list[Any] = [
        TimedGraph("ONNX Runtime float32", float_graph(weight), [Input("x", "float32", maps)], ["y"])
    ]
    last = timesteps, side, side, channels
    int8 = Input("x", "uint8", last)
    subjects.append(TimedGraph("ONNX Runtime int8", int8_graph(weight), [int8], ["y"]))
    where: list[tuple[float | None, float | None]] = [(None, None)] * 2
    forms = {"int16": np.rint(weight / np.abs(weight).max() * 2047).astype(np.int16), "float32": weight}
    for rate in rates:
        for correlation in correlations:
            spikes = draw_spikes(last, rate, correlation, draw)
            subjects += [TimedKernel(form, torch.from_numpy(values), spikes) for form, values in forms.items()]
            where += [(rate, correlation)] * len(forms)
    found = time_all(subjects, settings(runs=runs, rounds=4))
    return [
        {"channels": channels, "form": subject.name, "rate": rate, "correlation": correlation}
        | {"least_ms": min(row["ms"]), "p50_ms": row["p50_ms"], "ms": row["ms"]}
        for subject, (rate, correlation), (row,) in zip(subjects, where, found, strict=True)
    ]


def draw_spikes(shape: tuple[int, ...], rate: float, correlation: float, draw: np.random.Generator) -> Tensor:
    """Returns spikes [T, ...] in bytes, of that mean rate, any two steps of that correlation."""
    common, own = draw.random(shape[1:]) < rate, draw.random(shape) < rate
    spikes = np.where(draw.random(shape) < math.sqrt(correlation), common, own)
    return torch.from_numpy(spikes.astype(np.uint8))


class TimedKernel(NamedTuple):
    """The kernel on given spikes; see `export.timing.TimedGraph`."""

    name: str
    weight: Tensor
    spikes: Tensor
    device: str = "cpu"

    @contextlib.contextmanager
    def ready(self, batch: int, threads: int) -> Iterator[Callable[[], Any]]:
        """See `TimedGraph`."""
        ones, zeros = torch.ones(len(self.weight)), torch.zeros(len(self.weight))
        layer = EventConv(self.weight, ones, zeros, padding=(1, 1), timesteps=len(self.spikes))
        yield lambda: layer(self.spikes)


def float_graph(weight: np.ndarray) -> bytes:
    """Returns an ONNX graph of a float32 convolution of maps [N, C, H, W], with a bias."""
    constants = {"w": weight, "b": np.zeros(len(weight), np.float32)}
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)
    return _graph(node, constants, TensorProto.FLOAT, (weight.shape[1], None, None), [])


def int8_graph(weight: np.ndarray) -> bytes:
    """Returns an ONNX graph of an eight-bit convolution of maps [N, H, W, C], a scale for each output channel."""
    top = np.abs(weight).max((1, 2, 3))
    whole = np.rint(weight / top[:, None, None, None] * 127).astype(np.int8)
    constants: dict[str, Any] = {
        "one": np.float32(1), "zero": np.uint8(0), "w": whole,
        "scales": (top / 127).astype(np.float32), "zeros": np.zeros(len(weight), np.int8), "step": np.float32(0.25),
        "middle": np.uint8(128), "b": np.zeros(len(weight), np.int32),
    }  # fmt: skip
    node = helper.make_node("QLinearConv", ["x", *constants], ["y"], domain=_DOMAIN, pads=[1] * 4, channels_last=1)
    return _graph(node, constants, TensorProto.UINT8, (None, None, weight.shape[1]), [helper.make_opsetid(_DOMAIN, 1)])


def _graph(node: Any, constants: dict[str, Any], kind: int, sizes: tuple[int | None, ...], opsets: list[Any]) -> bytes:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x, y = (helper.make_tensor_value_info(name, kind, [None, *sizes]) for name in "xy")
    graph = helper.make_graph([node], "convolution", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), *opsets], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def picture(result: dict[str, Any]) -> str:
    """Draws the kernel's time over that of each opponent against the firing rate, as SVG."""
    try:
        import altair as alt
        import vl_convert
    except ModuleNotFoundError as error:
        raise ZooError(f"the picture needs {error.name}: pip install -e '.[site]' in the checkout") from error
    dense = {(p["channels"], p["form"]): p["least_ms"] for p in result["points"] if p["rate"] is None}
    pairs = {"int16 / int8": ("int16", "int8"), "int16 / float32": ("int16", "float32")}
    pairs |= {"float32 / float32": ("float32", "float32")}
    values = [
        {
            "pair": pair, "channels": f"{p['channels']} channels", "rate": p["rate"],
            "ratio": round(p["least_ms"] / dense[p["channels"], f"ONNX Runtime {against}"], 3),
            "correlation": f"correlation {p['correlation']:g}",
        }
        for pair, (form, against) in pairs.items() for p in result["points"]
        if p["rate"] is not None and p["form"] == form
    ]  # fmt: skip
    order = [f"{n} channels" for n in dict.fromkeys(p["channels"] for p in result["points"])]
    lines = alt.Chart().mark_line(strokeWidth=1.3, aria=False).encode(
        x=alt.X("rate:Q", scale=alt.Scale(type="log"), title="firing rate").axis(values=[0.01, 0.1, 0.5], format="~g"),
        y=alt.Y("ratio:Q", scale=alt.Scale(type="log"), title="time / time of ONNX Runtime").axis(
            values=[0.05, 0.1, 0.2, 0.5, 1, 2, 5], format="~g"
        ),
        color=alt.Color("pair:N", sort=list(pairs), legend=alt.Legend(orient="top", title=None)),
        strokeDash=alt.StrokeDash("correlation:N", legend=alt.Legend(orient="top", title=None)),
    )  # fmt: skip
    even = alt.Chart().mark_rule(color="#737b85", aria=False).encode(y=alt.datum(1))
    chart = alt.layer(lines, even, data=alt.Data(values=values)).properties(width=170, height=150)
    grey = {"labelColor": "#737b85", "titleColor": "#737b85"}
    faceted = chart.facet(facet=alt.Facet("channels:N", sort=order, title=None), columns=3).configure_view(stroke=None)
    faceted = faceted.configure_axis(gridOpacity=0.3, **grey).configure_legend(labelColor="#737b85")
    faceted = faceted.configure_header(labelColor="#737b85").properties(background="transparent")
    svg = vl_convert.vegalite_to_svg(faceted.to_dict(validate=False))
    return re.sub(r"(\.\d\d)\d+", r"\1", svg) + "\n"  # hundredths of a pixel do


if __name__ == "__main__":
    run_command(main)
