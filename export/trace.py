"""PyTorch's ONNX exporter, quiet, and its graph cleaned: the way of a module into ONNX."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from torch import nn

from zoo.errors import ZooError

OPSET = 20


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
    """The graph of a module in evaluation mode, constants as initializers, without notes on where a node comes from.

    Args:
        module: what to trace.
        example: its inputs.
        dynamic_shapes: of these, as `torch.onnx.export` takes them.
        what: is traced, for the error.
        rewrite: with the exporter's rules, which merge nodes but also drop a factor within 1e-5 of 1, as a neuron may
            learn; without them, constants alone are folded.
        names: input_names, output_names.

    Raises:
        ZooError: PyTorch's exporter fails.
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
        onnxscript.optimizer.fold_constants(program.model)
    # Metadata goes because the exporter notes source paths and stack traces in every node.
    clean = Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        *([] if rewrite else [passes.DeduplicateInitializersPass(), passes.CommonSubexpressionEliminationPass()]),
        passes.ClearMetadataAndDocStringPass(),
    )
    return ir.to_proto(clean(program.model).model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hush the exporter: deprecations inside PyTorch and progress notes say nothing about the network."""
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
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
