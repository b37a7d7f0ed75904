"""Shards that processes of a crew compute: the numbers of one process, and a training that ends in the same bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from shared_work import PicklingCrew
from text_models import normal
from training_values import values_of
from tuning_cases import Case, case, draw

from quark_onnx.clock import Clock, unseen
from quark_onnx.core.records import Training
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.decided import Decided
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.engine.labels import LABELS
from quark_onnx.graph.weights_apart import parted
from quark_onnx.stages.train.execution import threads
from quark_onnx.stages.train.shared_execution import shared
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import training_graph
from quark_onnx.trained import trained
from quark_onnx.training_data import TrainingData

NET = """g (float[N, 3, 6, 6] x) => (float[N, 5] y) {
    [a] h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) [r] r = Relu (h) [p] p = GlobalAveragePool (r) [f] f = Flatten (p)
    [b] y = Gemm (f, w2, b2)
}"""
ARRAYS = {"w1": normal(6, 3, 3, 3), "b1": normal(6), "w2": normal(6, 5), "b2": normal(5)}
LABELLED = np.random.default_rng(0).integers(0, 5, 40)


def net() -> Case:
    return case(NET, draw((1, 3, 6, 6), 40), ARRAYS, weight_type="int4", activation_type="uint8")


def shards(made: Case, *, labels: bool) -> list[Feed]:
    found: list[Feed] = []
    for start in range(0, len(made.feeds), 8):
        x = np.concatenate([feed["x"] for feed in made.feeds[start : start + 8]])
        found.append({"x": x, LABELS: LABELLED[start : start + len(x)]} if labels else {"x": x})
    return found


def arrays(found: Any) -> list[Any]:
    """What a shard has given, in a row."""
    parts = {**found.terms, **getattr(found, "of", {}), **getattr(found, "outputs", {})}
    return [found.samples, *(value for _, value in sorted(parts.items()))]


@pytest.mark.parametrize("labels", [False, True])
def test_gradients_and_losses_are_those_of_one_process(labels: bool) -> None:
    made = net()
    losses = Losses(kl=1.0, features=0.5, cross_entropy=0.3 if labels else 0.0)
    kind = (str(LABELLED.dtype), 1) if labels else None
    graph, crew = training_graph(made.model, made.plan, losses, labels=kind), PicklingCrew()
    values, data = values_of(graph, made.model, made.plan), shards(made, labels=labels)
    with threads(partial(Step, graph, made.model)) as here, shared(crew, graph, made.model) as there:
        for kind_of in ("gradients", "evaluate"):
            alone, others = ([arrays(f) for f in getattr(e, kind_of)(values, data)] for e in (here, there))
            assert len(alone) == len(others) == len(data) > 2
            for one, other in zip(alone, others, strict=True):
                assert len(one) == len(other) > 3
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_array_equal(a, b)
    assert crew.jobs == 2 * len(data)


def test_a_training_ends_in_the_same_plan() -> None:
    made, qat = net(), QAT(epochs=3, batch_size=16, shard=4, holdout=0.2)

    def done(crew: Crew | None) -> Decided:
        job = replace(made.job, config=replace(made.job.config, extra_options={"QAT": qat}))
        return trained(Decided(job, made.plan, keep(made.feeds)), TrainingData(), Clock(unseen), crew)

    crew = PicklingCrew()
    alone, others = done(None), done(crew)
    assert crew.jobs > 10
    assert isinstance(alone.training, Training)
    assert alone.training.accepted
    assert alone.training.curve == others.training.curve  # type: ignore[union-attr]
    assert alone.plan.codes.keys() == others.plan.codes.keys()
    for name, coded in alone.plan.codes.items():
        assert coded.same(others.plan.codes[name])
    for name, value in alone.plan.values.items():
        np.testing.assert_array_equal(value, others.plan.values[name])


def test_a_step_is_sent_with_its_weights_apart() -> None:
    """The teacher's alone are large: those of the graph come with the values."""
    made = net()
    graph = training_graph(made.model, made.plan, Losses())
    assert parted(graph.model)[1] == parted(graph.forward)[1] == {}
    assert not {"w1", "w2"} & {*graph.model.graph.initializers}
