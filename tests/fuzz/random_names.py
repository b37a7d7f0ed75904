"""Names that models bring: plain ones, paths, other scripts, control characters, patterns, and our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from model_builder import bodies

_ODD = (
    *("a b", "/layer.0/Conv_output_0", "名前", "ü", "😀", "..", "%s{0}", "-1", "true", " ", "$HOME", "<b>"),
    *("tab\tin", "new\nline", "\x1b[31mred", "nul\x00l", "\u202eright", "x" * 300),
    *("!not", "^start", "con[0-9]*", "?", "\\back", "'quoted\""),
)
_OURS = (
    *("_quantized", "_dequantized", "_scale", "_zero_point", "_QuantizeLinear", "_DequantizeLinear", "_output"),
    *("_Clip", "_clipped", "_low", "_high", "_float", "_bias", "_weight", "_before", "_1"),
    *("_shift", "_dims", "_tuned", "_half"),
)


def rename(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """New names for all values and nodes, in one style that is drawn; in half of all models none."""
    style = rng.random()
    if style < 0.5:
        return
    known = list(dict.fromkeys(_names(model.graph)))
    taken: dict[str, str] = {}
    for name in known:
        made = _odd(name, rng) if style < 0.75 else _ours(taken, name, rng)
        while made in taken.values() or made in known:
            made += "_1"
        taken[name] = made
    _apply(model.graph, lambda name: taken.get(name, name))
    if style > 0.9:
        for node in model.graph.node:
            node.name = ""


def _odd(name: str, rng: np.random.Generator) -> str:
    kind = rng.random()
    text = str(_ODD[int(rng.integers(len(_ODD)))])
    return name if kind < 0.3 else text + name if kind < 0.8 else text


def _ours(taken: dict[str, str], name: str, rng: np.random.Generator) -> str:
    """What quantizing another tensor of the model would make."""
    stem = str(rng.choice(list(taken.values()))) if taken and rng.random() < 0.7 else name
    return stem[:60] + str(rng.choice(_OURS))


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.initializer, *graph.output))
    for node in graph.node:
        yield from (name for name in (*node.input, *node.output, node.name) if name)
        for body in bodies(node):
            yield from _names(body)


def _apply(graph: onnx.GraphProto, new: Callable[[str], str]) -> None:
    for value in (*graph.input, *graph.initializer, *graph.output, *graph.value_info):
        value.name = new(value.name)
    for node in graph.node:
        node.input[:] = [new(name) if name else "" for name in node.input]
        node.output[:] = [new(name) if name else "" for name in node.output]
        node.name = new(node.name) if node.name else ""
        for body in bodies(node):
            _apply(body, new)
