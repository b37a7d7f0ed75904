"""Each term of the loss, and its gradient by the bias behind it, against its formula in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from training_nets import Quantized, quantized
from training_values import values_of

from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.labels import LABELS
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import TrainingGraph, training_graph

Array = np.ndarray[Any, np.dtype[Any]]


def term(losses: Losses, net: str = "convolutions", labels: Array | None = None) -> tuple[float, Array, Array]:
    """The only term, and what it is made of: the outputs of the quantized and of the float model."""
    made = quantized(net)
    kind = None if labels is None else (str(labels.dtype), labels.ndim)
    graph = training_graph(made.model, made.plan, losses, labels=kind)
    shard = made.shard if labels is None else {**made.shard, LABELS: labels}
    values, step = worse(graph, made), Step(graph, made.model)
    found = step.evaluate(values, shard)
    (value,) = found.terms.values()
    (float_output,) = Runner(made.model)(made.shard)
    assert_slope(graph, step, values, shard)
    return value, found.outputs["y"].astype(np.float64), float_output.astype(np.float64)


def worse(graph: TrainingGraph, made: Quantized) -> dict[str, Array]:
    """Larger weights, so that no difference is lost in float32."""
    values = values_of(graph, made.model, made.plan)
    return {**values, **{name: values[name] * np.float32(1.5) for name in graph.weights.values()}}


def assert_slope(graph: TrainingGraph, step: Step, values: dict[str, Array], shard: dict[str, Array]) -> None:
    """By the last bias, behind which nothing is rounded, the term changes as its gradient says."""
    name = graph.biases.get("b4") or graph.biases["b2"]
    gradient = step.gradients(values, shard).of[name].astype(np.float64)
    move = (np.random.default_rng(0).standard_normal(values[name].shape) * 1e-2).astype(np.float32)
    ends = [sum(step.evaluate({**values, name: values[name] + s * move}, shard).terms.values()) for s in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx((gradient * move).sum(), rel=0.02, abs=1e-6)


def log_softmax(x: Array) -> Array:
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_of_logits(temperature: float) -> None:
    value, mine, theirs = term(Losses(temperature=temperature))
    p, q = log_softmax(theirs / temperature), log_softmax(mine / temperature)
    assert value == pytest.approx(temperature**2 * (np.exp(p) * (p - q)).sum(), rel=1e-3)


def test_divergence_of_probabilities() -> None:
    value, mine, theirs = term(Losses(), "one bias")
    assert value == pytest.approx((theirs * np.log(theirs / mine)).sum(), rel=1e-3)


def test_what_has_no_classes_is_compared_by_its_squared_error() -> None:
    value, mine, theirs = term(Losses(), "matrices")
    errors = ((mine - theirs) ** 2).mean((1, 2)) / (theirs**2).mean((1, 2))
    assert value == pytest.approx(errors.sum(), rel=1e-3)


def test_cross_entropy() -> None:
    labels = np.array([0, 3, 4, 1])
    value, mine, _ = term(Losses(kl=0, cross_entropy=1), labels=labels)
    assert value == pytest.approx(-log_softmax(mine)[range(4), labels].sum(), rel=1e-5)


def test_cross_entropy_of_probabilities() -> None:
    labels = np.array([0, 3, 4, 1], np.int32)
    value, mine, _ = term(Losses(kl=0, cross_entropy=1), "one bias", labels)
    assert value == pytest.approx(-np.log(mine[range(4), labels]).sum(), rel=1e-5)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("net", ["convolutions", "matrices"])
def test_distances_from_labels(net: str, name: str, power: int) -> None:
    shape = (4, 5) if net == "convolutions" else (4, 4, 5)
    labels = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    value, mine, _ = term(Losses.from_dict({"kl": 0, name: 1}), net, labels)
    assert value == pytest.approx((abs(mine - labels) ** power).mean(tuple(range(1, mine.ndim))).sum(), rel=1e-5)


def test_features_are_squared_errors_inside() -> None:
    made = quantized("convolutions")
    graph = training_graph(made.model, made.plan, Losses(kl=0, features=2, feature_names=("r", "q")))
    values, names = values_of(graph, made.model, made.plan), ["r", "q"]
    found = Step(graph, made.model).evaluate(values, made.shard).terms["features"]
    theirs = Runner(io.with_outputs(made.model, names), names)(made.shard)
    mine = Runner(io.with_outputs(graph.forward, names), names, optimized=False)(
        {**made.shard, **values, **dict(zip(graph.teachers.values(), theirs, strict=True))}
    )
    axes = (1, 2, 3)
    shares = [((a - b) ** 2).mean(axes) / (b**2).mean(axes) for a, b in zip(mine, theirs, strict=True)]
    assert found == pytest.approx(np.mean(shares, 0).sum(), rel=1e-4)


def test_the_loss_is_the_sum_of_terms_by_their_weights() -> None:
    made = quantized("convolutions")
    names = ("r", "q")
    found = []
    for kl, features in ((2, 0), (0, 1), (2, 0.5)):
        losses = Losses(kl=kl, features=features, feature_names=names if features else ())
        graph = training_graph(made.model, made.plan, losses)
        found.append(Step(graph, made.model).gradients(worse(graph, made), made.shard).of[graph.weights["w1"]])
    np.testing.assert_allclose(found[2], found[0] + 0.5 * found[1], atol=1e-5 * np.abs(found[2]).max())
