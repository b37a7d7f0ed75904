"""What is known of the values inside a graph, their types and shapes: where it is missing, and where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quark_onnx.graph.edit import forget_types
from quark_onnx.graph.io import copy
from quark_onnx.graph.passes import infer_shapes
from quark_onnx.graph.view import numpy_dtype, shape

Dims = tuple[int | None, ...]


def inner(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values that nodes compute and the interface does not describe."""
    return (value for node in graph for value in node.outputs if value.name and not value.is_graph_output())


def unknown(graph: ir.Graph) -> list[ir.Value]:
    """Values that somebody reads and that may be tensors of which the type or the rank is not known."""
    return [value for value in inner(graph) if value.uses() and not is_known(value)]


def is_known(value: ir.Value) -> bool:
    """Whether it is a tensor of known type and rank, or no tensor at all."""
    if value.type is None:
        return False
    return not isinstance(value.type, ir.TensorType) or value.shape is not None


def inferred(model: ir.Model) -> ir.Model:
    """A copy that knows of its inner values what follows from the inputs, and nothing else."""
    bare = copy(model)
    forget_types(bare.graph)
    infer_shapes(bare)
    return bare


def drop_stale(model: ir.Model) -> list[str]:
    """Take off what the file says of inner values and what contradicts what follows from the inputs; whose it was.

    A dimension that an input has left open is no number inside either: those who open the batch of a model often forget
    the rest of it.
    """
    if not any(value.type is not None or value.shape is not None for value in inner(model.graph)):
        return []
    open_ = {dim.value for value in model.graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    truth = {value.name: value for value in inner(inferred(model).graph)}
    pairs = [(value, truth[value.name]) for value in inner(model.graph)]
    stale = [value for value, true in pairs if contradict(value, true) or _fixes(value, true, open_ - {None})]
    for value in stale:
        value.type, value.shape = None, None
    return [value.name or "" for value in stale]


def _fixes(value: ir.Value, true: ir.Value, names: set[str | None]) -> bool:
    """Whether a number stands for one of these symbols."""
    dims = zip(value.shape or (), true.shape or (), strict=False)
    return any(isinstance(n, int) and isinstance(m, ir.SymbolicDim) and m.value in names for n, m in dims)


def contradict(one: ir.Value, other: ir.Value) -> bool:
    """Whether two descriptions of a tensor cannot both be true."""
    kinds = {one.dtype, other.dtype} - {None}
    return len(kinds) > 1 or _misfit(shape(one), shape(other))


def describes(value: ir.Value, array: NDArray[Any]) -> bool:
    """Whether what is said of a value, if anything, is true of an array that it held."""
    kind = numpy_dtype(value)
    return (kind is None or kind == array.dtype) and not _misfit(shape(value), array.shape)


def _misfit(a: Dims | None, b: Dims | None) -> bool:
    if a is None or b is None:
        return False
    return len(a) != len(b) or any(None not in (n, m) and n != m for n, m in zip(a, b, strict=True))


def declare_outputs(model: ir.Model, original: ir.Model) -> None:
    """Shapes of the outputs as the original model has them: its names of dimensions, also where a number is known."""
    for value, given in zip(model.graph.outputs, original.graph.outputs, strict=True):
        if given.shape is not None:
            value.shape = given.shape.copy()


def tell(value: ir.Value, kind: str | np.dtype[Any], dims: Sequence[int | ir.SymbolicDim | None] | None) -> None:
    """Describe a tensor where nothing is known of it yet.

    Args:
        kind: an element type, as onnxruntime calls it or numpy.
        dims: None: not even their number is known.
    """
    if value.type is None:
        value.type = ir.TensorType(ir.DataType[kind.upper()] if isinstance(kind, str) else ir.DataType.from_numpy(kind))
    if value.shape is None and dims is not None:
        value.shape = ir.Shape(list(dims))
