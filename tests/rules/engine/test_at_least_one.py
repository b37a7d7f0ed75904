"""Whoever takes figures from feeds refuses a pass that saw none; where nothing is asked for, none are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from quantized_models import Feed, feeds, graph, quantized

from quark_onnx.core.errors import DataError
from quark_onnx.core.settings.fast_finetune import AdaRound, RangeLearning
from quark_onnx.engine.activation_walk import walk
from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.engine.observe import observe
from quark_onnx.engine.output_judge import OutputJudge
from quark_onnx.stages.finetune import finetune
from quark_onnx.stages.range_learning import learn

TEXT = "(float[2,3,6,6] x) => (float[2,4,4,4] y) <float[4,3,3,3] w> { [n] y = Conv (x, w) }"
MODEL = graph(TEXT)
PLAN = quantized(MODEL).plan
ROOMY = 1 << 28


def seen(*_: object) -> None:
    """Progress that nobody watches."""


READERS: dict[str, Callable[[Sequence[Feed]], object]] = {
    "observe": lambda data: observe(MODEL, data, ["x", "y"], seen),
    "observe, moving": lambda data: observe(MODEL, data, ["y"], seen, 0.1),
    "channel extremes": lambda data: channel_extremes(MODEL, data, ["y"], seen),
    "walk": lambda data: walk(MODEL, PLAN, data, ["n"], lambda node, frontier, plan: plan, ROOMY),
    "finetune": lambda data: finetune(MODEL, PLAN, data, AdaRound(), {}, ROOMY, seen),
    "range learning": lambda data: learn(MODEL, PLAN, data, RangeLearning(), ROOMY, seen),
    "judge": lambda data: OutputJudge(MODEL, data),
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_is_refused(reader: str) -> None:
    with pytest.raises(DataError, match=r"no sample to take .* at least one sample"):
        READERS[reader]([])


@pytest.mark.parametrize("reader", READERS)
def test_one_is_enough(reader: str) -> None:
    READERS[reader](feeds(MODEL, count=1))


def test_none_are_needed_where_nothing_is_asked_for() -> None:
    assert channel_extremes(MODEL, [], [], seen) == {}
    assert walk(MODEL, PLAN, [], [], lambda node, frontier, plan: plan, ROOMY) is PLAN


def test_the_feeds_come_one_by_one() -> None:
    read: list[int] = []
    source = (read.append(i) or {} for i in range(3))  # type: ignore[func-returns-value]  # it is None, so {}
    passing = at_least_one(source, "figures")
    assert read == []
    next(passing)
    assert read == [0]
    assert len(list(passing)) == 2
