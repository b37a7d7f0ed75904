"""Float against quantized: all that is measured of outputs, and the SQNR of tensors inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quark_onnx.core.records import Comparison
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model, Node, Value, io
from quark_onnx.graph.view import is_op, shape
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.numerics.output_measures import OutputMeasure


@dataclass(frozen=True, eq=False)
class Quantized:
    """An activation of a QDQ model: the value in front of its quantizer, the quantizer, and the value behind both."""

    source: Value
    quantizer: Node
    result: Value


def quantized_activations(quantized: Model) -> dict[str, Quantized]:
    """Tensor of the float model → what the QDQ model makes of it."""
    found = {}
    for node in quantized.graph:
        if is_op(node, "DequantizeLinear") and node.inputs[0] is not None:
            q = node.inputs[0].producer()
            if is_op(q, "QuantizeLinear") and q is not None and q.inputs[0] is not None:
                result = _shown(node.outputs[0])
                source = _source(_in_front_of_clip(q.inputs[0]))
                name = result.name if result.is_graph_output() else source.name
                found[name or ""] = Quantized(source, q, result)
    return found


def quantized_values(quantized: Model) -> dict[str, str]:
    """Tensor of the float model → tensor of the QDQ model that holds its dequantized value."""
    return {name: found.result.name or "" for name, found in quantized_activations(quantized).items()}


def _shown(value: Value) -> Value:
    """The model output that the value becomes, in another float type perhaps; else the value."""
    casts = [reader.outputs[0] for reader in value.consumers() if is_op(reader, "Cast")]
    return next((cast for cast in casts if cast.is_graph_output()), value)


def _source(value: Value) -> Value:
    """What a quantizer rounds, in the float type that it was computed in."""
    producer = value.producer()
    before = producer.inputs[0] if producer is not None and is_op(producer, "Cast") else None
    return value if before is None else before


def _in_front_of_clip(value: Value) -> Value:
    """The value that `apply` clips to a grid that is narrower than its type; any other value itself."""
    clip = value.producer()
    clipped = clip.inputs[0] if clip is not None and is_op(clip, "Clip") else None
    return value if clipped is None or not (value.name or "").startswith(f"{clipped.name}_clipped") else clipped


def compare(model: Model, quantized: Model, feeds: Iterable[Feed], *, optimized: bool) -> Comparison:
    """All outputs of the float model against those of the same names in the quantized one, over all feeds.

    optimized: run the quantized model as a user's runtime would, or exactly as it is written.
    """
    measures = {value.name or "": OutputMeasure(shape(value)) for value in model.graph.outputs}
    samples = 0
    for expected, found in _both(
        model, quantized, feeds, {name: name for name in measures}, optimized, io.is_large(model)
    ):
        samples += 1
        for name, measure in measures.items():
            measure.add(expected[name], found[name])
    return Comparison({name: measure.measured for name, measure in measures.items()}, samples)


def tensor_sqnr(
    model: Model, quantized: Model, feeds: Iterable[Feed], pairs: Mapping[str, str], *, optimized: bool
) -> dict[str, float]:
    """SQNR in dB, over all feeds, of each pair of float tensors: in the float model → in the quantized one."""
    ratios: dict[str, Sqnr] = {}
    for expected, found in _both(model, quantized, feeds, pairs, optimized):
        for name, x in expected.items():
            if isinstance(x, np.ndarray) and x.dtype.kind == "f":  # sequences and maps come as Python objects
                ratios.setdefault(name, Sqnr()).add(x, found[name])
    return {name: ratio.db for name, ratio in ratios.items()}


def _both(
    model: Model,
    quantized: Model,
    feeds: Iterable[Feed],
    pairs: Mapping[str, str],
    optimized: bool,
    at_once: bool = False,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What both models make of each feed, under the names of the float one.

    at_once: the float model runs on all feeds first, as two sessions would be more than its size.
    """
    inputs = {value.name for value in model.graph.inputs}
    answers = _answers(model, [name for name in pairs if name not in inputs], feeds, at_once=at_once)
    wanted = list(pairs.values())
    run = Runner(io.with_outputs(quantized, wanted), wanted, optimized=optimized)
    read = {value.name for value in quantized.graph.inputs}
    for feed, answer in answers:
        known = feed | answer
        part = {name: array for name, array in feed.items() if name in read}
        yield {name: known[name] for name in pairs}, dict(zip(pairs, run(fit(part, quantized)), strict=True))


def _answers(model: Model, names: list[str], feeds: Iterable[Feed], *, at_once: bool) -> Iterable[tuple[Feed, Feed]]:
    """The feeds, and what the model makes of each; `at_once`: all are kept, and the session is closed."""
    runner = Runner(io.with_outputs(model, names), names or None)
    answers = ((feed, dict(zip(runner.outputs, runner(feed), strict=True))) for feed in feeds)
    return list(answers) if at_once else answers
