"""LIF neurons in ONNX: a placeholder node while PyTorch traces, and the model-local function that it stands for.

The function body is `zoo.neurons.LIF.step` unrolled over time, operation for operation, so that float32 membrane
potentials agree bit for bit wherever the input currents do.
"""

from typing import Any, NamedTuple

import onnx_ir as ir
import torch
from torch import Tensor, nn

from zoo.neurons.folding import input_current
from zoo.neurons.lif import LIF

DOMAIN = "snnzoo"
OPSET = 20
LAYER = "layer"
"""Attribute of a placeholder node: the name of the layer that it stands for."""


class Numbers(NamedTuple):
    """The numbers of a LIF layer, attributes of its node; gain is the factor 1 - decay of `decay_input`."""

    decay: float
    gain: float
    threshold: float


class Kind(NamedTuple):
    """What decides the operations of a LIF layer; its `Numbers` are attributes of the node."""

    timesteps: int
    soft_reset: bool
    decay_input: bool

    @property
    def name(self) -> str:
        """The name of the function: LIF_4_hard, LIF_4_soft_decay_input ..."""
        suffix = "_decay_input" if self.decay_input else ""
        return f"LIF_{self.timesteps}_{'soft' if self.soft_reset else 'hard'}{suffix}"


def kind_of(layer: LIF) -> Kind:
    """The kind of a neuron layer."""
    return Kind(layer.timesteps, layer.soft_reset, bool(layer.decay_input))


@torch.no_grad()
def numbers_of(layer: LIF) -> Numbers:
    """The numbers of a neuron layer, those of PLIF as they are now."""
    # 1 - decay in the layer's own precision: float64 for a number, float32 for PLIF's tensor.
    return Numbers(float(layer.decay), float(1 - layer.decay), layer.threshold)


class LIFPlaceholder(nn.Module):
    """Takes the place of a neuron layer in the copy of a network that is traced: one node `snnzoo::LIF_...`."""

    def __init__(self, name: str, layer: LIF) -> None:
        super().__init__()
        self.function = f"{DOMAIN}::{kind_of(layer).name}"
        self.attributes: dict[str, Any] = {LAYER: name, **numbers_of(layer)._asdict()}
        self.timesteps = layer.timesteps

    def forward(self, x: Tensor, **current: Any) -> Tensor:
        """As `LIF.forward`, to a placeholder for the spikes."""
        x = input_current(x, self.timesteps, **current)
        return torch.onnx.ops.symbolic(self.function, (x,), self.attributes, dtype=x.dtype, shape=x.shape, version=1)


def lif_function(kind: Kind) -> ir.Function:
    """The unrolled neuron: currents [T*B, ...], time-major, to spikes of the same shape."""
    x, tape = ir.Value(name="currents"), ir.tape.Tape()

    def op(name: str, *inputs: ir.Value, **attributes: int | float) -> ir.Value:
        return tape.op(name, list(inputs), attributes)

    def parameter(name: str) -> ir.Value:
        return tape.op("Constant", [], {"value_float": ir.RefAttr("value_float", name, ir.AttributeType.FLOAT)})

    decay, gain, threshold = (parameter(name) for name in Numbers._fields)
    one = op("Constant", value_float=1.0)
    steps = kind.timesteps
    currents = [x]
    if steps > 1:
        currents = list(tape.op_multi_out("Split", [x], {"axis": 0, "num_outputs": steps}, num_outputs=steps))
    v, spikes = None, []
    for t, current in enumerate(currents):
        if kind.decay_input:
            current = op("Mul", current, gain)
        u = current if v is None else op("Add", op("Mul", v, decay), current)
        # The reference tests u - threshold >= 0: the same in IEEE arithmetic, where only equal numbers differ by zero.
        s = op("Cast", op("GreaterOrEqual", u, threshold), to=int(ir.DataType.FLOAT))
        spikes.append(s)
        if t == steps - 1:
            break  # nobody asks for the last membrane potential
        # Arithmetic instead of Where: ONNX Runtime runs it faster on a CPU.
        v = op("Sub", u, op("Mul", threshold, s)) if kind.soft_reset else op("Mul", u, op("Sub", one, s))
    out = op("Concat", *spikes, axis=0) if steps > 1 else spikes[0]
    graph = ir.Graph([x], [out], nodes=tape.nodes, opset_imports={"": OPSET}, name=kind.name)
    declared = [ir.Attr(name, ir.AttributeType.FLOAT, None) for name in Numbers._fields]
    return ir.Function(DOMAIN, kind.name, "", graph=graph, attributes=declared)
