"""Eight bits: the same network as a graph of convolutions over bytes.

`quantised` lays it out, `calibrate` finds the scales of its currents and the roundings of
its weights from training images, `prove` shows on a copy that
eight bits represent exactly that the graph computes what the float32 graph computes.
"""

from .quantised import Rounded, convolutions, quantised, spike_convolutions

__all__ = ["Rounded", "convolutions", "quantised", "spike_convolutions"]
