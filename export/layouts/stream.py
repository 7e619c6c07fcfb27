"""Step and loop: one time step in the graph, the neurons' states beside its input; driven from outside, or by ONNX."""

from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper

from zoo.errors import ZooError

from ..assembly import Assembly, Piece, needed, read_by
from ..encodings import frames_of
from ..neurons import State
from ..parts import Parts
from .one_step import add_step, fix

COUNTER = State((), False, TensorProto.INT64)
"""The state of a graph whose steps differ: how many there were."""
TIMESTEPS = "timesteps"
"""The input of a loop that says how often it runs."""
LOGITS = "logits/t"
"""The logits of a step inside a loop."""


class StateOf(NamedTuple):
    """A state of a step graph."""

    layer: str
    """"" for the counter of steps."""
    state: State


def states_of(parts: Parts) -> list[StateOf]:
    """The states of a network's steps, in the order of its layers; last the counter of steps if it needs one.

    Raises:
        ZooError: it takes no single steps, or cannot start from zeros.
    """
    for layer, neurons in parts.neurons.items():
        if neurons.any_step is None:
            several = "do not start from zeros, or do something else in every step"
            why = f"the neurons {layer!r}, {neurons.kind}, {several if neurons.later else 'know one step alone'}"
            raise ZooError(f"no graph of one time step: {why}; take the layout flat or function")
    found = [StateOf(layer, state) for layer, neurons in parts.neurons.items() for state in neurons.states]
    counts = parts.factors or any(neurons.counts_steps for neurons in parts.neurons.values())
    return [*found, *([StateOf("", COUNTER)] if counts else [])]


def step(parts: Parts) -> Assembly:
    """One step, from "input" and "state_i" to "logits" and "new_state_i"; all states start at zero."""
    g, states = Assembly(), states_of(parts)
    given = [f"state_{i}" for i in range(len(states))]
    names = fix(g, parts, image=False) | {"input": "input"}
    logits, new = _step(g, parts, names, states, given, "t")
    g.op("Identity", [logits], "logits")
    for i, name in enumerate(new):
        g.op("Identity", [name], f"new_state_{i}")
    return g


def loop(parts: Parts) -> Assembly:
    """All steps, from "input" and "timesteps", a number, to "logits": an ONNX Loop over one step."""
    g, states = Assembly(), states_of(parts)
    steps = g.op("Cast", [TIMESTEPS], "steps", to=TensorProto.FLOAT)
    frames = frames_of(g, parts.encoding, g.op("Sub", [steps, g.constant("one", np.float32(1))], "last_step"))
    names = fix(g, parts, image=frames is None)
    batch = g.op("Shape", ["input"], "batch", start=0, end=1)
    before = [_zeros(g, state, batch, f"start/{i}") for i, (_, state) in enumerate(states)]
    before.append(_zeros(g, State((parts.classes,), True, TensorProto.FLOAT), batch, "start/logits"))
    inner = Assembly()
    if frames is not None:
        names["input"] = frames(inner, "t", "t")
    given = [f"state/{i}" for i in range(len(states))]
    logits, new = _step(inner, parts, names, states, given, "t", counter="t")
    inner.op("Identity", [logits], LOGITS)
    inner.op("Add", ["logits/before", LOGITS], "logits/after")
    inner.op("Identity", ["more"], "more/after")
    for i, name in enumerate(new):
        inner.op("Identity", [name], f"state/{i}/after")
    ends = [f"state/{i}/after" for i in range(len(states))]
    body = helper.make_graph(
        needed(inner.nodes, ["more/after", *ends, "logits/after"]), "time_step",
        [helper.make_tensor_value_info("t", TensorProto.INT64, []),
         helper.make_tensor_value_info("more", TensorProto.BOOL, []),
         *(value_info(name, state) for name, (_, state) in zip(given, states, strict=True)),
         helper.make_tensor_value_info("logits/before", TensorProto.FLOAT, ["batch", parts.classes])],
        [helper.make_tensor_value_info("more/after", TensorProto.BOOL, []),
         *(value_info(name, state) for name, (_, state) in zip(ends, states, strict=True)),
         helper.make_tensor_value_info("logits/after", TensorProto.FLOAT, ["batch", parts.classes])],
    )  # fmt: skip
    read = set().union(*map(read_by, body.node))
    body.initializer.extend(tensor for name, tensor in inner.constants.items() if name in read)
    results = [*(f"end/{i}" for i in range(len(states))), "logits/total"]
    g.nodes.append(helper.make_node("Loop", [TIMESTEPS, "", *before], results, "time", body=body))
    g.op("Div", ["logits/total", "steps"], "logits")
    return g


def _step(
    g: Assembly,
    parts: Parts,
    names: dict[str, str],
    states: list[StateOf],
    given: list[str],
    step: str,
    counter: str | None = None,
) -> tuple[str, list[str]]:
    """One step from given states: the names of its logits and new states."""
    held: dict[str, list[str]] = {layer: [] for layer in parts.neurons}
    for (layer, _), name in zip(states, given, strict=True):
        if layer:
            held[layer].append(name)
        else:
            counter = counter or name
    # The number of the step goes to a layer as one more state, which it does not give back.
    forms: dict[str, Piece] = {}
    for layer, neurons in parts.neurons.items():
        assert neurons.any_step is not None
        forms[layer] = neurons.any_step
        if neurons.counts_steps:
            assert counter is not None
            held[layer].append(counter)
    factors = {
        layer: g.op("Gather", [g.constant(f"{layer}/factors", factor), counter or ""], f"{layer}/factor", axis=0)
        for layer, factor in parts.factors.items()
    }
    logits = add_step(g, parts, names, forms, factors, held, step)
    new = {layer: iter(values) for layer, values in held.items()}
    after = [next(new[layer]) if layer else "" for layer, _ in states]
    if after and not after[-1]:
        one = g.constant("one_step", np.int64(1))
        after[-1] = g.op("Add", [given[-1], one], "steps/after")
    return logits, after


def value_info(name: str, state: State) -> Any:
    """The declaration of a state in a graph."""
    return helper.make_tensor_value_info(name, state.dtype, [*(["batch"] if state.batched else []), *state.shape])


def _zeros(g: Assembly, state: State, batch: str, name: str) -> str:
    zero = helper.make_tensor("zero", state.dtype, [1], [0])
    sizes = g.constant(f"{name}/sizes", np.array(state.shape, np.int64))
    shape = g.op("Concat", [batch, sizes], f"{name}/shape", axis=0) if state.batched else sizes
    return g.op("ConstantOfShape", [shape], name, value=zero)
