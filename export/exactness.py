"""The exact part of the gate: a graph against what it must give, bit for bit, at every optimisation level."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.errors import ZooError

from .counts import add_spike_outputs
from .graph import spike_values
from .run import OPTIMIZATIONS, Runner
from .skeleton import DOMAIN

BATCHES = (1, 3)
Run = tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]
"""Images, and what the graph must give for them: "logits", and the spikes [T*B, ...] under their names in the graph."""


def check_same_operations(twin: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raise ZooError unless a graph begins with the operations of its twin, each on what the twin's are on; instruments
    may follow. Names may differ, but for spikes and logits."""
    names = {name: name for graph in (twin.graph, proto.graph) for name in [value.name for value in graph.input]}
    if not _begins_with(proto.graph, twin.graph, names, (*spike_values(twin).values(), "logits")):
        raise ZooError("verification failed: the graph's operations are not those that the network exports to")


def _begins_with(graph: onnx.GraphProto, twin: onnx.GraphProto, names: dict[str, str], fixed: tuple[str, ...]) -> bool:
    """Whether a graph has the nodes of another, in order and first, and so have the bodies of its loops.

    Args:
        graph, twin: the two.
        names: from values of the twin to the graph's; learns the new ones.
        fixed: what begins names that both have alike.
    """
    if len(graph.node) < len(twin.node):
        return False
    for node, known in zip(graph.node, twin.node, strict=False):
        if _kind(node) != _kind(known) or len(node.output) < len(known.output):
            return False
        # One of the two may be without a bias, which the exporter leaves out where it is zero.
        if any(names.get(theirs, mine) != mine for theirs, mine in zip(known.input, node.input, strict=False)):
            return False
        bodies, theirs = ([a.g for a in one.attribute if a.HasField("g")] for one in (node, known))
        if len(bodies) != len(theirs):
            return False
        for body, other in zip(bodies, theirs, strict=True):
            given = zip([value.name for value in other.input], [value.name for value in body.input], strict=False)
            if not _begins_with(body, other, names | dict(given), fixed):
                return False
        names |= dict(zip(known.output, node.output, strict=False))
        if any(mine != name for mine, name in zip(node.output, known.output, strict=False) if name.startswith(fixed)):
            return False
    return True


def _kind(node: onnx.NodeProto) -> str:
    """What it does, of a function without its number, see `layouts.function`: neurons with other numbers are alike in
    the exact copy."""
    return re.sub(r"(_\d+)+$", "", node.op_type) if node.domain == DOMAIN else node.op_type


def compare_exactly(proto: onnx.ModelProto, runs: Sequence[Run], other: str) -> dict[str, Any]:
    """Compare a graph with what is known of it.

    Args:
        proto: the graph of a network whose arithmetic is exact.
        runs: one for each batch.
        other: what gave the expected values, for the error.

    Returns:
        JSON values: levels, batches, layers, spike_rates, identical.

    Raises:
        ZooError: a spike or logit differs, or a layer never spikes.
    """
    values = spike_values(proto)
    rates = {name: spike_rate(runs, value) for name, value in values.items()}
    if silent := [name for name, rate in rates.items() if rate == 0]:
        raise ZooError(f"verification proves nothing: layers {', '.join(silent)} never spike in the exact copy")
    for level in tqdm(OPTIMIZATIONS, desc="exactness", leave=False, disable=None):
        for graph, names in ((proto, ["logits"]), (add_spike_outputs(proto), [*values.values(), "logits"])):
            run = Runner(graph, optimization=level)
            for images, expected in runs:
                for name, got in zip(names, run(images, names), strict=True):
                    if not np.array_equal(expected[name], got):
                        raise ZooError(
                            f"verification failed: {name} differ from {other} on exact arithmetic "
                            f"({_difference(expected[name], got)}; optimization {level}, batch {len(images)})"
                        )
    batches = [len(images) for images, _ in runs]
    about = {"levels": list(OPTIMIZATIONS), "batches": batches, "layers": len(values)}
    return about | {"spike_rates": rates, "identical": True}


def spike_rate(runs: Sequence[Run], value: str) -> float:
    """Spikes per neuron and time step of a layer, over all runs."""
    return float(np.concatenate([expected[value] for _, expected in runs]).mean())


def _difference(expected: NDArray[np.float32], got: NDArray[np.float32]) -> str:
    if expected.shape != got.shape:
        return f"shape {list(got.shape)} instead of {list(expected.shape)}"
    return f"{int((expected != got).sum())} of {expected.size} values"
