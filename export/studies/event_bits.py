"""Whether event-driven files give the same bits in the kernel and as standard operators: `python -m
export.studies.event_bits`.

Of each bundled network of a data set, exported in int16, the spikes of every layer and the logits of test images are
compared: the functions of the file, and the kernel with each instruction set that this processor has, in ONNX Runtime
with all optimisations. `--time` measures how long float32 and int16 files take for the first image, instead, in turns
on one thread of a quiet machine. Writes a JSON file, network after network; those that it has are not run again.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import zoo
from zoo.errors import CommandParser, count, run_command
from zoo.files import write_json
from zoo.kernels.event import list_instruction_sets
from zoo.provenance import provenance

from ..commands import settings
from ..file import add_description
from ..images import network_inputs
from ..network import build_graph
from ..run import Runner
from ..timing import Input, TimedGraph, time_all

_CHUNK = 50


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m export.studies.event_bits", description="Same bits in kernel and functions.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="bundled networks (all of the data set)")
    parser.add_argument("--data", default="cifar10", help="a data set (cifar10)")
    parser.add_argument("--data-dir", metavar="DIR", help="where it lies")
    parser.add_argument("--limit", type=count, default=1000, metavar="N", help="test images (1000)")
    parser.add_argument("--time", action="store_true", help="compare the time of float32 and int16 files")
    parser.add_argument("--json", required=True, metavar="FILE", help="the result")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path, done = Path(args.json), {}
    if path.exists():
        done = json.loads(path.read_text())["networks"]
    names = args.names or [name for name in zoo.list_pretrained() if name.split(".")[1].split("_")[1] == args.data]
    data = zoo.load_dataset(args.data, args.data_dir)
    images = np.asarray(data.test_images[: args.limit])
    for name in names:
        if name not in done:
            model, begin = zoo.load(name).eval(), time.perf_counter()
            if args.time:
                done[name] = _time(model, images[:1])
            else:
                done[name] = _compare(model, images)
                done[name]["seconds"] = round(time.perf_counter() - begin, 1)
            print(name, done[name], flush=True)
            write_json(path, {"images": len(images), "networks": done, **provenance()})


def _graph(model: Any) -> onnx.ModelProto:
    return add_description(build_graph(model, precision="int16"), model)


def _compare(model: Any, images: Any) -> dict[str, Any]:
    proto, inputs, kernels = _graph(model), network_inputs(model, images), {}
    for instructions in list_instruction_sets():
        os.environ["SNNZOO_INSTRUCTIONS"] = instructions
        kernels[instructions] = Runner(proto, threads=1, spikes=True)
    functions, values, ones = Runner(proto, threads=1, functions=True, spikes=True), 0, 0
    names = [*functions.values.values(), "logits"]
    differing = dict.fromkeys(kernels, 0)
    for start in range(0, len(inputs), _CHUNK):
        chunk = inputs[start : start + _CHUNK]
        expected = functions(chunk, names)
        values += sum(array.size for array in expected)
        ones += sum(int(array.sum()) for array in expected[:-1])
        for instructions, runner in kernels.items():
            got = runner(chunk, names)
            differing[instructions] += sum(int((a != b).sum()) for a, b in zip(expected, got, strict=True))
    return {"values": values, "spikes": ones, "differing": differing}


def _time(model: Any, image: Any) -> dict[str, Any]:
    inputs = network_inputs(model, image)
    taken = [Input("input", "float32", (0, *inputs.shape[1:]))]
    files = [add_description(build_graph(model), model), _graph(model)]
    subjects = [TimedGraph("", file.SerializeToString(), taken, ["logits"], images=inputs) for file in files]
    p50 = [rows[0]["p50_ms"] for rows in time_all(subjects, settings(runs=30, rounds=5))]
    return {"fp32_ms": round(p50[0], 3), "int16_ms": round(p50[1], 3), "ratio": round(p50[1] / p50[0], 3)}


if __name__ == "__main__":
    run_command(main)
