"""What a network's operations would cost on a chip of 45 nm: a model to compare networks by, not a measurement.

Picojoules of 32-bit floating-point arithmetic at 45 nm and 0.9 V by Horowitz 2014 ("Computing's energy problem", ISSCC,
doi 10.1109/ISSCC.2014.6757323): an addition 0.9, a multiplication 3.7.
"""

from collections.abc import Mapping
from typing import Any

AC_PJ = 0.9
MAC_PJ = 0.9 + 3.7


def energy(counts: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the microjoules per image, by what they go to, and in `total`:

        acs        0.9 pJ x (Effective_ACs + those of products)
        macs       4.6 pJ x (Effective_MACs + those of products)

    This is the literature's number: it leaves out the neurons and what it costs to move data. Normalisation is free, as
    folded into the weights. The stem is counted as often as it runs: once with direct encoding.

    Args:
        counts: a measurement of `zoo.metrics.evaluate`, or the record of one.

    Returns:
        None where the operations are not known.
    """
    keys = "Effective_ACs", "Effective_MACs"
    layers: list[Any] = [counts.get(key) for key in keys]
    products: list[Any] = [(counts.get("products") or {}).get(key) for key in keys]
    if None in layers + products:
        return None
    acs, macs = map(sum, zip(layers, products, strict=True))
    lines = {"acs": AC_PJ * acs * 1e-6, "macs": MAC_PJ * macs * 1e-6}
    return lines | {"total": sum(lines.values())}
