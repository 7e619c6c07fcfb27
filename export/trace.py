"""PyTorch's ONNX exporter, quiet, and its graph cleaned: the way of a module into ONNX."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from zoo.errors import ZooError, one_line

from .graph import OPSET

# Functions of a number, in ONNX and in PyTorch, whose last bit is not the same in every library.
_ROUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "Exp": torch.exp,
    "Log": torch.log,
    "Sigmoid": torch.sigmoid,
    "Softplus": nn.functional.softplus,
    "Tanh": torch.tanh,
}


@torch.no_grad()
def trace(
    module: nn.Module,
    example: tuple[Any, ...],
    dynamic_shapes: tuple[Any, ...],
    *,
    what: str,
    rewrite: bool = True,
    **names: Any,
) -> onnx.ModelProto:
    """Returns the graph of a module in evaluation mode, constants as initializers, without notes on nodes' origins.

    Args:
        module, example, dynamic_shapes, names: as `torch.onnx.export` takes them.
        what: is traced, for the error.
        rewrite: with the exporter's rules, which merge nodes but also drop a factor within 1e-5 of 1, as a neuron may
            learn; without them, constants alone are folded.
    """
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                opset_version=OPSET,
                optimize=rewrite,
                verbose=False,
                **names,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ZooError(f"PyTorch's ONNX exporter failed on {what}: {_root_cause(error)}") from error
    assert program is not None
    if not rewrite:
        passes.InlinePass()(program.model)
        _fold(program.model)
    # Metadata goes because the exporter notes source paths and stack traces in every node.
    clean = Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        *([] if rewrite else [passes.DeduplicateInitializersPass(), passes.CommonSubexpressionEliminationPass()]),
        passes.ClearMetadataAndDocStringPass(),
    )
    return ir.to_proto(clean(program.model).model)


def _fold(model: ir.Model) -> None:
    """Folds what follows from constants alone, to what PyTorch makes of them: with NumPy's sigmoid, some decays that
    neurons learn would be others in the graph than in the network, by a bit."""
    while True:
        onnxscript.optimizer.fold_constants(model, should_fold=lambda node: False if node.op_type in _ROUNDED else None)
        found = [node for node in model.graph if node.op_type in _ROUNDED]
        known = [(node, x) for node in found if (x := ir.convenience.get_const_tensor(node.inputs[0])) is not None]
        if not known:
            return
        for node, x in known:
            value = _ROUNDED[node.op_type](torch.from_numpy(x.numpy().copy()))
            constant = ir.node("Constant", [], {"value": ir.tensor(value.numpy())})
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [constant], node.outputs, constant.outputs
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hushes the exporter: deprecations inside PyTorch and progress notes say nothing about the network."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error)}"
