"""The forward pass of a training graph is the model that is exported, to the bit, in every format and kind of layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newer_onnxruntime import needs_opset
from training_nets import NETS, quantized
from training_values import values_of

from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.runner import Runner
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import training_graph

FORMATS: dict[str, dict[str, Any]] = {
    "int8": {},
    "per channel": {"per_channel": True},
    "4 bits": {"weight_type": "int4", "activation_type": "uint4", "per_channel": True},
    "2 and 3 bits": {"weight_type": "int2", "activation_type": "int3"},
    "16 bits": {"activation_type": "uint16", "Int16Bias": True},
    "symmetric": {"ActivationSymmetric": True, "AlignConcat": True},
    "powers of two": {"UsePowerOf2Scale": True},
    "blocks": {"weight_type": "uint4", "BlockSize": 4},
    "float biases": {"QuantizeBias": False},
    "weights only": {"WeightsOnly": True},
}
ADDED = {"convolutions": 1, "tied": 1}
"""Biases that preparation adds: for a layer without one, and for one that two layers of different scales read."""

BELOW = 21
"""The operator set that brought types below 8 bits."""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("net", NETS)
def test_forward_is_the_exported_model(net: str, format: str) -> None:
    if "bits" in format or format == "blocks":
        needs_opset(BELOW)
    made = quantized(net, Losses(features=1.0), **FORMATS[format])
    assert (made.graph.unreached, made.graph.stops) == ((), ())
    values, step = values_of(made.graph, made.model, made.plan), Step(made.graph, made.model)
    found = step.evaluate(values, made.shard)
    want = Runner(apply(made.model, made.plan), optimized=False)(made.shard)
    for got, expected in zip(found.outputs.values(), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    back = step.gradients(values, made.shard)
    assert back.terms == pytest.approx(found.terms, rel=1e-4)
    assert back.of.keys() == values.keys()
    for name, gradient in back.of.items():
        assert gradient.shape == values[name].shape
        assert np.isfinite(gradient).all()
        assert gradient.any(), name


@pytest.mark.parametrize("net", NETS)
def test_all_parameters_of_a_net_are_trained(net: str) -> None:
    made = quantized(net)
    groups = {site.group for site in made.plan.sites.values() if site.role == "activation"}
    assert made.graph.scales.keys() == groups
    trained = made.graph.weights.keys() | made.graph.biases.keys()
    assert trained >= {name for name in NETS[net].parameters if name in made.model.graph.initializers}
    assert len(trained) == len(NETS[net].parameters) + ADDED.get(net, 0)


@pytest.mark.parametrize("kind", ["weights", "biases", "scales"])
def test_every_input_counts(kind: str) -> None:
    made = quantized("convolutions")
    values, step = values_of(made.graph, made.model, made.plan), Step(made.graph, made.model)
    before = step.evaluate(values, made.shard).terms["kl"]
    for name in getattr(made.graph, kind).values():
        moved = {**values, name: np.asarray(values[name] * 1.5 + 0.1, np.float32)}
        assert step.evaluate(moved, made.shard).terms["kl"] != before, name


def test_shards_add_up() -> None:
    made = quantized("convolutions", Losses(features=0.5))
    values, step = values_of(made.graph, made.model, made.plan), Step(made.graph, made.model)
    whole = step.gradients(values, made.shard)
    parts = [step.gradients(values, {"x": made.shard["x"][i : i + 2]}) for i in (0, 2)]
    assert whole.samples == sum(part.samples for part in parts) == 4
    for name, term in whole.terms.items():
        assert term == pytest.approx(sum(part.terms[name] for part in parts), rel=1e-5)
    largest = max(np.abs(gradient).max() for gradient in whole.of.values())
    for name, gradient in whole.of.items():
        np.testing.assert_allclose(gradient, sum(part.of[name] for part in parts), atol=1e-5 * largest)


def test_only_what_is_wanted_has_gradients() -> None:
    made = quantized("tied")
    graph = training_graph(made.model, made.plan, Losses(), wanted=["biases"])
    assert graph.gradients.keys() == set(graph.biases.values())
    values = values_of(graph, made.model, made.plan)
    assert Step(graph, made.model).gradients(values, made.shard).of.keys() == graph.gradients.keys()
