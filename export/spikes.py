"""The form of a spike that ONNX Runtime runs fastest: a clipped line so steep that it is a step.

HardSigmoid(u) = max(0, min(1, alpha u + beta)). With alpha a power of two so large that neighbouring float32 numbers
at the threshold are 1 apart after the product, and beta = 1 - alpha threshold, it is exactly u >= threshold in float32:
1 at the threshold, 0 one number below. ONNX Runtime fuses it into the convolution in front and keeps it in that
convolution's blocked layout, which a comparison and a cast leave. So do factors with one entry per channel instead of a
scalar, and sums instead of differences. export/reports/forms.json has the measurement.
"""

import math

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from .assembly import Piece, needed

_FLOAT = 1
_BITS = 24
"""Of a float32 mantissa."""


def steep(threshold: float) -> tuple[float, float] | None:
    """alpha and beta of the HardSigmoid that is u >= threshold in float32; None where there is none."""
    threshold = float(np.float32(threshold))
    mantissa, exponent = math.frexp(threshold)
    if mantissa == 0.5:  # numbers below a power of two are closer to it than those above
        mantissa, exponent = 1.0, exponent - 1
    if threshold == 0 or not -100 < exponent < 100:
        return None
    return 2.0 ** (_BITS - exponent), 1 - mantissa * 2**_BITS


def steep_spikes(piece: Piece, shape: tuple[int, ...]) -> Piece:
    """A step of neurons in that form.

    Args:
        piece: the step, as it was traced.
        shape: of its currents and states without the batch; maps [C, H, W] have factors with an entry per channel. ()
            where not all have one shape.
    """
    made = {name: node for node in piece.nodes for name in node.output}
    constants = dict(piece.constants)
    floats = {name: t for name, t in constants.items() if t.data_type == _FLOAT and math.prod(t.dims) == 1}
    scalars = {name: numpy_helper.to_array(t).item() for name, t in floats.items()}
    lines: dict[str, tuple[str, float, float]] = {}  # from a spike to what it is of, alpha and beta
    nodes: list[NodeProto] = []

    def times(value: str, factor: float, out: str) -> None:
        name = f"{out}/factor"
        entries = np.full((1, shape[0], 1, 1) if len(shape) == 3 else (), factor, np.float32)
        constants[name] = numpy_helper.from_array(entries, name)
        nodes.append(helper.make_node("Mul", [value, name], [out]))

    for node in piece.nodes:
        out = node.output[0]
        spike = _comparison(node, made, scalars)
        if spike is not None and (line := steep(spike[1])) is not None:
            lines[out] = (spike[0], *line)
            nodes.append(_hard_sigmoid(spike[0], out, *line))
            continue
        if node.op_type == "Sub" and node.input[1] in lines and scalars.get(node.input[0]) == 1:
            u, alpha, beta = lines[node.input[1]]  # 1 - spike
            nodes.append(_hard_sigmoid(u, out, -alpha, 1 - beta))
            continue
        if node.op_type == "Sub" and (product := _scaled(made.get(node.input[1]), scalars)) is not None:
            times(product[0], -product[1], f"{out}/negative")
            nodes.append(helper.make_node("Add", [node.input[0], f"{out}/negative"], [out]))
            continue
        if (product := _scaled(node, scalars)) is not None:
            times(*product, out)
            continue
        nodes.append(node)
    kept = needed(nodes, piece.outputs)
    read = {name for node in kept for name in node.input} | set(piece.outputs)
    return Piece(piece.inputs, piece.outputs, kept, {name: t for name, t in constants.items() if name in read})


def _comparison(node: NodeProto, made: dict[str, NodeProto], scalars: dict[str, float]) -> tuple[str, float] | None:
    """u and threshold of a spike, (u - threshold >= 0) or (u >= threshold) cast to float32; None if it is none.

    The two are the same in IEEE arithmetic, where only equal numbers differ by zero.
    """
    compared = made.get(node.input[0]) if node.op_type == "Cast" and node.attribute[0].i == _FLOAT else None
    if compared is None or compared.op_type != "GreaterOrEqual":
        return None
    u, threshold = compared.input[0], scalars.get(compared.input[1])
    difference = made.get(u)
    if threshold == 0 and difference is not None and difference.op_type == "Sub":
        u, threshold = difference.input[0], scalars.get(difference.input[1])
    return None if threshold is None else (u, threshold)


def _scaled(node: NodeProto | None, scalars: dict[str, float]) -> tuple[str, float] | None:
    """A value and the number that it is multiplied by; None if the node does something else."""
    if node is None or node.op_type != "Mul":
        return None
    for value, factor in (node.input, reversed(node.input)):
        if factor in scalars and value not in scalars:
            return value, scalars[factor]
    return None


def _hard_sigmoid(u: str, out: str, alpha: float, beta: float) -> NodeProto:
    return helper.make_node("HardSigmoid", [u], [out], alpha=alpha, beta=beta)
