"""How long things take beside each other, in rounds: graphs in ONNX Runtime, and networks in PyTorch.

A machine drifts, so what is compared takes turns: in each round, every subject runs a block of runs at each setting.
Two sessions of ONNX Runtime that are alive at once spin against each other, so a block has a session of its own, which
is gone before the next subject's begins; runs that are not timed warm it up first.
"""

from .rounds import Subject, check_settings, time_all
from .subjects import Graph, Network

__all__ = ["Graph", "Network", "Subject", "check_settings", "time_all"]
