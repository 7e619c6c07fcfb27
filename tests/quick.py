"""What the tests spare themselves without testing anything else: imports and PyTorch's reading of its own library."""

import contextlib
import functools
import importlib
from typing import Any


def import_early() -> None:
    """Import what commands import late, for the processes that are forked of this one."""
    for name in ("matplotlib.figure", "onnxruntime", "onnxscript.optimizer", "scipy.stats", "sklearn.datasets"):
        importlib.import_module(name)


def read_operators_once() -> None:
    """The exporter reads its operators and decompositions anew for each graph, which takes as long as a small one."""
    with contextlib.suppress(ImportError, AttributeError):  # a PyTorch that is built otherwise: the tests take longer
        from torch.onnx._internal._lazy_import import onnxscript_apis as operators
        from torch.onnx._internal.exporter import _decomp as decompositions
        from torch.onnx._internal.exporter._registration import ONNXRegistry as Registry

        operators.get_torchlib_ops = functools.cache(operators.get_torchlib_ops)
        Registry.from_torchlib = classmethod(functools.cache(Registry.from_torchlib.__func__))
        make, tables = decompositions.create_onnx_friendly_decomposition_table, []

        def table(registered: set[Any]) -> dict[Any, Any]:
            tables[:] = tables or [make(registered)]
            return dict(tables[0])  # which the exporter takes from

        decompositions.create_onnx_friendly_decomposition_table = table
