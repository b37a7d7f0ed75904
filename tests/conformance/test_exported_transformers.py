"""Nine small transformers, as both exporters of PyTorch write them: every product with a weight runs on integers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from exported_transformers import EXPORTS, FOLDER, exported_feeds
from newer_onnxruntime import needs_opset

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.plan import Plan
from quark_onnx.engine.compare import compare_ways
from quark_onnx.graph import io
from quark_onnx.result import Result

PRODUCTS = {"bert": 13, "bert_relu": 13, "bert_norm_by_hand": 13, "gpt": 13, "gpt_inf_mask": 9, "llama": 15}
PRODUCTS |= {"llama_past": 15, "vit": 14, "swin": 15}
"""Weights of Conv, Gemm and MatMul."""

SQNR = {"bert": 21, "bert_relu": 22, "bert_norm_by_hand": 22, "gpt": 24, "gpt_inf_mask": 24, "vit": 25, "swin": 28}
SQNR |= {"llama": 23, "llama_past": 20}
"""dB of every output on samples that calibration has not seen."""

CONFIG = replace(get_default_config("S8S8_AAWS"), per_channel=True)


@cache
def made(name: str) -> Result:
    return ModelQuantizer(CONFIG).quantize_model(str(FOLDER / f"{name}.onnx"), None, exported_feeds(name, 32))


@pytest.mark.parametrize("name", EXPORTS)
def test_all_products_are_on_integers_and_outputs_keep_their_signal(name: str) -> None:
    """With a past, also with none, which calibration has not seen. Protection may take products of scores."""
    if name.endswith(".op23"):
        needs_opset(23)
    design, result = name.split(".")[0], made(name)
    weights = {tensor for tensor, site in result.plan.sites.items() if site.role == "weight"}
    integer = {row.node for row in result.report.ledger if row.status == "integer"}
    assert sum(not weights.isdisjoint(result.plan.nodes[node]) for node in integer) == PRODUCTS[design]
    model, quantized = io.load(FOLDER / f"{name}.onnx"), io.load(result.model)
    for past in (5, 0) if design == "llama_past" else (5,):
        (found,) = compare_ways(model, quantized, exported_feeds(name, 32, seed=1, past=past), ("run",))
        assert min(found.sqnr.values()) > SQNR[design]


@pytest.mark.parametrize("design", PRODUCTS)
def test_both_exporters_and_opsets_get_the_same_quantizers(design: str) -> None:
    """However what stands between the layers is written; and of the same ranges, where the same positions count."""
    legacy, dynamo = (scales(made(f"{design}.{exporter}").plan) for exporter in ("legacy", "dynamo"))
    assert len(legacy) == len(dynamo)
    if not design.startswith("bert"):  # padding can be cut off where dimensions are open
        assert legacy == pytest.approx(dynamo, rel=1e-4)


def test_a_normalization_by_hand_gets_the_quantizers_of_one_that_is_not() -> None:
    assert len(scales(made("bert_norm_by_hand.dynamo").plan)) == len(scales(made("bert_relu.dynamo").plan))


def scales(plan: Plan) -> list[float]:
    """Of all activations, in order of size."""
    groups = {site.group for site in plan.sites.values() if site.role == "activation"}
    return sorted(float(plan.qparams[group].scale) for group in groups)
