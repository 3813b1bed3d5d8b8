"""ONNX export: writes a torch module as a graph and checks that its batch and length dimensions are free."""

import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import torch
from onnx_ir import Graph
from torch import Tensor, nn

from image_finder.components.errors import BundleError

OPSET = 18


def export_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: dict[str, tuple[str | None, ...]],
    outputs: Sequence[str],
) -> None:
    """Write a module as one self-contained ONNX file.

    example: inputs with a batch of 2 (with 1, the exporter silently fixes the batch to 1). inputs: dimension names of
    each input, None for a fixed dimension. Raises BundleError if a named dimension is not free.
    """
    names = {name for dimensions in inputs.values() for name in dimensions if name}
    free = {name: torch.export.Dim(name, min=1, max=65_536) for name in sorted(names)}
    shapes = tuple({axis: free[name] for axis, name in enumerate(dimensions) if name} for dimensions in inputs.values())
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # the exporter prints progress and internal warnings
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
        )
    if program is None:
        raise BundleError(f"cannot export {path.name}: torch.onnx.export returned no program")
    _free_names(program.model.graph, outputs)
    program.save(str(path), external_data=False)
    _require_free(path, inputs)


def _free_names(graph: Graph, outputs: Sequence[str]) -> None:
    """Rename inner values that have an output's name, such as lookups of a token and of a position, both `embedding`."""
    ends = {id(value) for value in graph.outputs}
    values = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    inner = [value for value in values if value.name in outputs and id(value) not in ends]
    for number, value in enumerate(inner):
        value.name = f"{value.name}_inner{number}"


def _require_free(path: Path, inputs: dict[str, tuple[str | None, ...]]) -> None:
    graph = onnx.load(str(path), load_external_data=False).graph
    for value in graph.input:
        dimensions = value.type.tensor_type.shape.dim
        for axis, (dimension, name) in enumerate(zip(dimensions, inputs[value.name], strict=True)):
            if name and not dimension.dim_param:
                raise BundleError(
                    f"cannot export {path.name}: dimension {axis} ('{name}') of input '{value.name}' is fixed to "
                    f"{dimension.dim_value}; export with a batch of 2"
                )


def export_stem(stem: nn.Module, path: Path, *, input_px: int | None) -> None:
    """Export a frozen stem with output `features`. input_px: None for a text stem."""
    if input_px is None:
        export_text_module(stem, path, outputs=("features",))
    else:
        export_image_module(stem, path, input_px=input_px, outputs=("features",))


def export_image_module(module: nn.Module, path: Path, *, input_px: int, outputs: Sequence[str]) -> None:
    """Export a module of pixels (batch, input_px, input_px, 3) uint8."""
    example = (torch.zeros(2, input_px, input_px, 3, dtype=torch.uint8),)
    export_module(module, example, path, inputs={"pixels": ("batch", None, None, None)}, outputs=outputs)


def export_text_module(module: nn.Module, path: Path, *, outputs: Sequence[str]) -> None:
    """Export a module of token ids and mask, both (batch, length) int64."""
    ids = torch.tensor([[101, 1037, 3899, 102, 0], [101, 1037, 4937, 2652, 102]])
    free: tuple[str | None, ...] = ("batch", "length")
    export_module(module, (ids, (ids > 0).long()), path, inputs={"ids": free, "mask": free}, outputs=outputs)
