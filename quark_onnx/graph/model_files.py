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
    for tensor in tensors(model.graph):
        if uses_external_data(tensor):
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph and of those in its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from tensors(inner)
