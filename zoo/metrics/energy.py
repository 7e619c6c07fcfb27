"""What a network's operations would cost on a chip of 45 nm: a model to compare networks by, not a measurement.

Picojoules of 32-bit floating-point arithmetic at 45 nm and 0.9 V by Horowitz 2014 ("Computing's energy problem", ISSCC,
doi 10.1109/ISSCC.2014.6757323): an addition 0.9, a multiplication 3.7; 64 bits of an 8 kB cache 10.
"""

from collections.abc import Mapping
from typing import Any

AC_PJ = 0.9
MAC_PJ = 0.9 + 3.7
MEMBRANE_PJ = MAC_PJ
"""A membrane update is a decay and an addition."""
ACCESS_PJ = 10 / 2
"""The access to one 32-bit word."""


def energy(counts: Mapping[str, Any], *, membranes: bool = False, memory: bool = False) -> dict[str, float] | None:
    """Microjoules per image, by what they go to, and in `total`:

        acs        0.9 pJ x (Effective_ACs + those of products)
        macs       4.6 pJ x (Effective_MACs + those of products)
        membranes  4.6 pJ x membrane_updates
        memory     5.0 pJ x (Effective_ACs + Effective_MACs + 2 membrane_updates): a weight is read for each operation
                   of a layer, a membrane is read and written for each update; all else stays in registers

    The literature's number is that of the first two lines, which leaves out the neurons and what it costs to move data.
    Normalisation is free, as folded into the weights. The stem is counted as often as it runs: once with direct
    encoding.

    Args:
        counts: a measurement of `zoo.metrics.evaluate`, or the record of one.
        membranes, memory: with these lines.

    Returns:
        None where the operations are not known, or a line asked for is not.
    """
    keys = "Effective_ACs", "Effective_MACs"
    layers: list[Any] = [counts.get(key) for key in keys]
    products: list[Any] = [(counts.get("products") or {}).get(key) for key in keys]
    updates: Any = counts.get("membrane_updates")
    if None in layers + products or (updates is None and (membranes or memory)):
        return None
    acs, macs = map(sum, zip(layers, products, strict=True))
    picojoules = {"acs": AC_PJ * acs, "macs": MAC_PJ * macs}
    if membranes:
        picojoules["membranes"] = MEMBRANE_PJ * updates
    if memory:
        picojoules["memory"] = ACCESS_PJ * (sum(layers) + 2 * updates)
    lines = {line: value * 1e-6 for line, value in picojoules.items()}
    return lines | {"total": sum(lines.values())}
