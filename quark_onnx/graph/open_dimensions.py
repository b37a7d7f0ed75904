"""Dimensions of −1 or 0 mean "any": older exporters (Paddle2ONNX up to 1.0, for one) write a dynamic batch so.

onnxruntime and onnx take −1 for unknown, but in arithmetic on shapes it is a number, and a 0 is taken literally: the
model could be run on nothing. Such a dimension is left open; shapes of initializers are facts and stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir


def open_dimensions(model: ir.Model) -> None:
    """Leave dimensions below 1 open, of all inputs, outputs and values in between."""
    for graph in model.graphs():
        for value in _told(graph):
            shape = value.shape
            if shape is not None and any(isinstance(dim, int) and dim < 1 for dim in shape):
                value.shape = ir.Shape(None if isinstance(dim, int) and dim < 1 else dim for dim in shape)


def close_dimensions(model: ir.Model, shapes: Mapping[str, Sequence[int | None]]) -> None:
    """Open dimensions of inputs become those that all the data has, by input; None leaves one open."""
    for value in model.graph.inputs:
        known = shapes.get(value.name or "")
        if value.shape is not None and known is not None and len(known) == len(value.shape):
            pairs = zip(value.shape, known, strict=True)
            value.shape = ir.Shape(dim if isinstance(dim, int) or size is None else size for dim, size in pairs)


def _told(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values whose shape is what the file says of them."""
    yield from (value for value in graph.inputs if not value.is_initializer())
    for node in graph:
        yield from node.outputs
