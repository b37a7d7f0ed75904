"""Which files a model consists of, told without reading its weights where that can be avoided."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from quark_onnx.core.resource_faults import let_out

LOCATION = b"location"
"""The key under which a tensor names the file of its data: a model without these bytes has none."""


def external_files(path: Path) -> list[Path]:
    """The files beside a model that hold its weights, sorted; whether they exist is not looked at.

    None for what is no model at all.
    """
    try:
        if not _names_a_location(path):
            return []
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        let_out(error)
        return []
    return sorted({path.parent / name for name in _locations(model)})


def _names_a_location(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(LOCATION) >= 0


def _locations(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in (*tensors(model.graph), *constants(model)):
        if uses_external_data(tensor):
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph and of those in its nodes, but for sparse ones."""
    yield from graph.initializer
    for attribute in _attributes(graph):
        yield from _dense(attribute)
        for inner in _graphs(attribute):
            yield from tensors(inner)


def constants(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model but initializers: in attributes, those of functions too, and the parts of sparse ones."""
    for part in (model.graph, *model.functions):
        yield from _constants(part)


def _constants(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    sparse = list(part.sparse_initializer) if isinstance(part, onnx.GraphProto) else []
    for attribute in _attributes(part):
        yield from _dense(attribute)
        sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        sparse += attribute.sparse_tensors
        for inner in _graphs(attribute):
            yield from _constants(inner)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _attributes(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.AttributeProto]:
    return (attribute for node in part.node for attribute in node.attribute)


def _dense(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    yield from (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors)


def _graphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    yield from (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs)
