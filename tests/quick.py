"""What the tests spare themselves without testing anything else: imports and PyTorch's reading of its own library."""

import contextlib
import functools
import importlib


def import_early() -> None:
    """Import what commands import late, for the processes that are forked of this one."""
    for name in ("matplotlib.figure", "onnxruntime", "onnxscript.optimizer", "scipy.stats", "sklearn.datasets"):
        importlib.import_module(name)


def read_operators_once() -> None:
    """The exporter reads all its operators anew for each graph, which takes as long as a small one."""
    with contextlib.suppress(ImportError, AttributeError):  # a PyTorch that is built otherwise: the tests take longer
        from torch.onnx._internal._lazy_import import onnxscript_apis as operators

        operators.get_torchlib_ops = functools.cache(operators.get_torchlib_ops)
