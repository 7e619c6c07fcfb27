"""What the tests spare themselves without testing anything else: imports and PyTorch's reading of its own library."""

import functools
import importlib

from torch.onnx._internal import _lazy_import


def import_early() -> None:
    """Import what commands import late, for the processes that are forked of this one."""
    for name in ("matplotlib.figure", "onnxruntime", "onnxscript.optimizer", "scipy.stats", "sklearn.datasets"):
        importlib.import_module(name)


def read_operators_once() -> None:
    """The exporter reads all its operators anew for each graph, which takes longer than a small graph."""
    operators = _lazy_import.onnxscript_apis
    operators.get_torchlib_ops = functools.cache(operators.get_torchlib_ops)
