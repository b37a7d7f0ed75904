"""Float against quantized: all that is measured of outputs, and the SQNR of tensors inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from quark_onnx.core.records import Comparison
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.output_sums import OutputSums, comparison
from quark_onnx.engine.runner import Arrays, Runner, fit
from quark_onnx.engine.runtimes import onnxruntime_cpu
from quark_onnx.engine.runtimes.runtime import Run, Runtime
from quark_onnx.graph import Model, Node, Value, io
from quark_onnx.graph.edit import shortened
from quark_onnx.graph.view import constant_values, is_op, output_names
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.numerics.output_measures import OutputMeasure

Way = Literal["run", "written", "without_vnni"]
"""How a quantized model runs: in a runtime, as for a user; exactly as it is written; or in that runtime on x64 without
VNNI."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """An activation of a QDQ model: the value in front of its quantizer, the quantizer, and the value behind both."""

    source: Value
    quantizer: Node
    result: Value


def quantized_activations(quantized: Model) -> dict[str, Quantized]:
    """Tensor of the float model → what the QDQ model makes of it."""
    return dict(quantizer_pairs(quantized))


def quantizer_pairs(quantized: Model) -> Iterator[tuple[str, Quantized]]:
    """All of them, with the tensor: one may have several. A constant that is quantized in the model is none."""
    fixed = constant_values(quantized)
    for node in quantized.graph:
        if is_op(node, "DequantizeLinear") and node.inputs[0] is not None:
            q = node.inputs[0].producer()
            if is_op(q, "QuantizeLinear") and q is not None and q.inputs[0] is not None and q.inputs[0] not in fixed:
                result = _shown(node.outputs[0])
                source = _source(_in_front_of_clip(q.inputs[0]))
                name = result.name if result.is_graph_output() else source.name
                yield name or "", Quantized(source, q, result)


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
    if clipped is None or not (value.name or "").startswith(shortened(f"{clipped.name}_clipped")):
        return value
    return clipped


def compare(
    model: Model, quantized: Model, feeds: Iterable[Feed], *, optimized: bool, counted: Counted | None = None
) -> Comparison:
    """All outputs of the float model against those of the same names in the quantized one, over all feeds.

    optimized: run the quantized model as a user's runtime would, or exactly as it is written.
    counted: which positions of the outputs are looked at; None: all.
    """
    (found,) = compare_ways(model, quantized, feeds, ("run" if optimized else "written",), counted)
    return found


def compare_ways(
    model: Model,
    quantized: Model,
    feeds: Iterable[Feed],
    ways: Sequence[Way],
    counted: Counted | None = None,
    runtime: Runtime = onnxruntime_cpu.RUNTIME,
) -> list[Comparison]:
    """The same for each way to run the quantized model; the float one runs once, in onnxruntime.

    Raises:
        ModelError: the runtime fails; or among the ways is `without_vnni`, which cannot be had here.
    """
    totals = [OutputSums(model, counted, OutputMeasure) for _ in ways]
    for expected, answers in _all_outputs(model, quantized, feeds, ways, runtime):
        for total, found in zip(totals, answers, strict=True):
            total.add(expected, found)
    return [comparison(total) for total in totals]


def compare_each(
    model: Model, quantized: Model, feeds: Iterable[Feed], counted: Counted | None = None
) -> tuple[Comparison, list[Comparison]]:
    """All outputs of the quantized model as it is written, over all feeds, and for each feed alone."""
    whole, alone = OutputSums(model, counted, OutputMeasure), []
    for expected, (found,) in _all_outputs(model, quantized, feeds, ("written",)):
        single = OutputSums(model, counted, OutputMeasure)
        for sums in (whole, single):
            sums.add(expected, found)
        alone.append(comparison(single))
    return comparison(whole), alone


def _all_outputs(
    model: Model,
    quantized: Model,
    feeds: Iterable[Feed],
    ways: Sequence[Way],
    runtime: Runtime = onnxruntime_cpu.RUNTIME,
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """What each feed holds and the float model makes of it, and the quantized one in each way."""
    names = output_names(model)
    return _sides(model, quantized, feeds, {name: name for name in names}, ways, io.is_heavy(model), runtime)


def tensor_sqnr(
    model: Model, quantized: Model, feeds: Iterable[Feed], pairs: Mapping[str, str], *, optimized: bool
) -> dict[str, float]:
    """SQNR in dB, over all feeds, of each pair of float tensors: in the float model → in the quantized one."""
    if not pairs:  # nothing has a quantizer, as after dynamic quantization
        return {}
    ratios: dict[str, Sqnr] = {}
    for expected, (found,) in _sides(model, quantized, feeds, pairs, ("run" if optimized else "written",)):
        for name in pairs:
            x = expected[name]
            if isinstance(x, np.ndarray) and x.dtype.kind == "f":  # sequences and maps come as Python objects
                ratios.setdefault(name, Sqnr()).add(x, found[name])
    return {name: ratio.db for name, ratio in ratios.items()}


def _sides(
    model: Model,
    quantized: Model,
    feeds: Iterable[Feed],
    pairs: Mapping[str, str],
    ways: Sequence[Way],
    at_once: bool = False,
    runtime: Runtime = onnxruntime_cpu.RUNTIME,
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """What each feed holds and the float model makes of it, and the quantized one in each way, under the same names.

    at_once: each session runs on all feeds and is closed, as two would be more than the size of the model.
    """
    inputs = {value.name for value in model.graph.inputs}
    answers = _answers(model, [name for name in pairs if name not in inputs], feeds, at_once=at_once)
    together = _in_turn if at_once else _side_by_side
    opened = [partial(_opened, quantized, list(pairs.values()), way, runtime) for way in ways]
    for known, found in together(opened, answers):
        yield known, [dict(zip(pairs, arrays, strict=True)) for arrays in found]


Answered = Iterable[tuple[Feed, Feed]]
Opened = Callable[[], AbstractContextManager[Run]]


def _side_by_side(ways: Sequence[Opened], answers: Answered) -> Iterator[tuple[Feed, list[Arrays]]]:
    """Feed by feed, with all sessions open."""
    with ExitStack() as stack:
        runs = [stack.enter_context(opened()) for opened in ways]
        for feed, answer in answers:
            yield feed | answer, [run(feed) for run in runs]


def _in_turn(ways: Sequence[Opened], answers: Answered) -> Iterator[tuple[Feed, list[Arrays]]]:
    """Session by session; what each makes is kept."""
    kept = list(answers)
    columns = [_column(opened, [feed for feed, _ in kept]) for opened in ways]
    for (feed, answer), found in zip(kept, zip(*columns, strict=True), strict=True):
        yield feed | answer, list(found)


def _column(opened: Opened, feeds: Sequence[Feed]) -> list[Arrays]:
    with opened() as run:
        return [run(feed) for feed in feeds]


@contextmanager
def _opened(quantized: Model, wanted: Sequence[str], way: Way, runtime: Runtime) -> Iterator[Run]:
    """The quantized model, ready to run; it takes feeds of the float one."""
    read = {value.name for value in quantized.graph.inputs}
    names = list(wanted)
    with ExitStack() as stack:
        run: Run
        if way == "without_vnni":
            run = stack.enter_context(runtime.without_vnni(quantized, names))
        elif way == "run":
            run = runtime.load(quantized, names)
        else:
            run = Runner(io.with_outputs(quantized, names), names, optimized=False)
        yield lambda feed: run(fit({name: array for name, array in feed.items() if name in read}, quantized))


def _answers(model: Model, names: list[str], feeds: Iterable[Feed], *, at_once: bool) -> Answered:
    """The feeds, and what the model makes of each; `at_once`: all are kept, and the session is closed."""
    runner = Runner(io.with_outputs(model, names), names or None)
    answers = ((feed, dict(zip(runner.outputs, runner(feed), strict=True))) for feed in feeds)
    return list(answers) if at_once else answers
