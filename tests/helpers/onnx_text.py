"""Models as ONNX text with named nodes, `[n] y = Relu (x)`, which onnx reads since 1.18: here each onnx does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import onnx
import onnx.parser

_NAMED = re.compile(r"(?<!\w)\[([a-zA-Z]\w*)\](\s+[^=()<>]+=\s*[\w.]+)")


def parse_model(text: str) -> onnx.ModelProto:
    """What `onnx.parser.parse_model` reads. A name is the operator's overload on the way, which no test else writes."""
    model = onnx.parser.parse_model(_NAMED.sub(r"\2:\1", text))
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _with_bodies(nodes):
            node.name, node.overload = node.overload, ""
    return model


def _with_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _with_bodies(attribute.g.node)
