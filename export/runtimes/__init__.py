"""Graphs in runtimes other than ONNX Runtime: which of them take a graph, and do they compute the same spikes?

`python -m export.runtimes NAME ...` runs the graphs of a network on images in each of them, and compares classes and
spike counts with ONNX Runtime's (`comparison`). A membrane potential within rounding of its threshold may spike in one
and not in the other, so a few differing spikes are no error; half a spike is.

A runtime is a function from a file to a session, which is asked as one of ONNX Runtime's is (`sessions`).
"""

from .comparison import compare_sessions
from .sessions import RUNTIMES

__all__ = ["RUNTIMES", "compare_sessions"]
