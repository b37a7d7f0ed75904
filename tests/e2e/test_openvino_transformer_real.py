"""A transformer in OpenVINO: all products with weights on integers, those of two activations fused in float."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
from openvino_installed import needs_openvino
from real_tasks import sentences

from quark_onnx import Config, ModelQuantizer, get_default_config
from quark_onnx.engine.runner import Runner
from quark_onnx.engine.runtimes.openvino import cpu as openvino_cpu
from quark_onnx.graph.view import constant
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.result import Result

PRODUCTS = 36
"""Six each of queries, keys, values, what joins heads, and both layers behind."""

pytestmark = needs_openvino


@pytest.fixture(scope="module")
def minilm(protocol: ModuleType) -> Result:
    """One α for all sites: to judge each takes as long as all else."""
    preset = get_default_config("S8S8_AAWS")
    options = {**preset.extra_options, "SmoothAlpha": 0.7}
    config = Config(replace(preset, per_channel=True, target="openvino", extra_options=options))
    return ModelQuantizer(config).quantize_model(protocol.TASKS["minilm-stsb"].model, None, sentences(protocol, 24))


def test_all_products_with_weights_are_on_integers(minilm: Result) -> None:
    found = openvino_cpu.executed_nodes(minilm.evidence.quantized)
    layers = [one for one in found if one.op_type == "FullyConnected"]
    assert [one.primitive.lower().endswith("i8") for one in layers] == [True] * PRODUCTS
    assert sum(one.op_type == "Subgraph" for one in found) == 6  # attention: both products and Softmax in one
    assert not [one for one in found if one.op_type == "FakeQuantize"]  # none that no layer takes in


def test_products_of_two_activations_have_no_quantizers(minilm: Result) -> None:
    products = [node for node in minilm.evidence.model.graph if node.op_type == "MatMul"]
    both = {node.name for node in products if all(constant(value) is None for value in node.inputs)}  # type: ignore[arg-type]
    assert (len(products), len(both)) == (48, 12)
    assert both.isdisjoint(minilm.plan.nodes)


def test_it_is_smoothed_and_close_to_float(minilm: Result, protocol: ModuleType) -> None:
    assert sum(record.alpha > 0 for record in minilm.report.smoothed) == 24
    evidence, feeds = minilm.evidence, sentences(protocol, 40)[24:]
    whole = (Sqnr(), Sqnr())
    loaded = [openvino_cpu.Loaded(one, threads=1) for one in (evidence.model, evidence.quantized)]
    as_written = Runner(evidence.quantized, optimized=False, threads=1)
    for feed in feeds:
        expected, *found = (run(feed)[0] for run in (*loaded, as_written))
        for ratio, other in zip(whole, found, strict=True):
            ratio.add(expected, other)
    assert whole[0].db >= 21.0  # .815 of Spearman's has 20 dB
    assert abs(whole[0].db - whole[1].db) <= 1.0  # sums in another order flip codes: of few sentences
