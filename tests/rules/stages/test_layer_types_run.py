"""Integers and weights alone in one model: tuned, applied, proven; smaller files, and the same ones each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
import pytest
from newer_onnxruntime import needs_version
from text_models import normal, text_model
from tuning_cases import draw

from quark_onnx import ModelQuantizer, QuantizationConfig, Result, get_default_config

TEXT = """g (float[N,3,12,12] x) => (float[N,16] y) {
  [stem] h = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w0, b0) [r0] hr = Relu (h)
  [body] i = Conv <pads = [1, 1, 1, 1]> (hr, w1, b1) [r1] ir = Relu (i) [skip] j = Add (hr, ir)
  [late] k = Conv (j, w2) [r2] kr = Relu (k) [pool] p = GlobalAveragePool (kr) [flat] f = Flatten (p)
  [head] m = MatMul (f, w3) [ha] n = Add (m, b3) [r3] nr = Relu (n) [last] y = MatMul (nr, w4) }"""
ALONE = {"activation_type": "float", "weight_type": "uint4", "symmetric": False}
BLOCKS = {**ALONE, "BlockSize": 32}


def model() -> onnx.ModelProto:
    shapes = {"w0": (32, 3, 3, 3), "w1": (32, 32, 3, 3), "w2": (64, 32, 1, 1), "w3": (64, 64), "w4": (64, 16)}
    shapes |= {"b0": (32,), "b1": (32,), "b3": (64,)}
    fans = {"w0": 27, "w1": 288, "w2": 32, "w3": 64, "w4": 64}
    return text_model(
        TEXT, **{n: normal(*dims, seed=i) / fans.get(n, 1) ** 0.5 for i, (n, dims) in enumerate(shapes.items())}
    )


FEEDS = [{"x": feed["x"][None]} for feed in draw((3, 12, 12), 16)]
TUNED = {"FastFinetune": {"OptimAlgorithm": "adaround", "NumIterations": 100}}


def config(types: dict[str, Any], preset: str = "S8S8_AAWS_ADAROUND", **extra: Any) -> QuantizationConfig:
    start = get_default_config(preset)
    return replace(start, per_channel=True, extra_options={**start.extra_options, **extra, "LayerTypes": types})


def quantized(asked: QuantizationConfig) -> Result:
    return ModelQuantizer(asked).quantize_model(model(), None, FEEDS)


def kernels(result: Result) -> dict[str, str]:
    return {row.node: row.kernel for row in result.report.ledger}


def test_mixed_types_are_tuned_and_run_as_they_are_written() -> None:
    asked = config({"body": ALONE, "late": {"weight_type": "int8"}}, **TUNED)
    mixed, plain = quantized(asked), quantized(config({}, **TUNED))
    assert [record.node for record in mixed.report.tuned] == ["stem", "body", "late", "head", "last"]
    assert not mixed.report.untuned
    run, written = mixed.report.outputs["y"], mixed.report.written["y"]
    assert run.db is not None and written.db is not None and plain.report.outputs["y"].db is not None
    assert abs(run.db - written.db) < 0.5 and not mixed.report.departure
    assert plain.report.outputs["y"].db > run.db > 20
    assert mixed.report.stored["quantized"] < plain.report.stored["quantized"] - 4000  # of 9,216 weights
    assert kernels(mixed)["stem"] == kernels(plain)["body"] == "QLinearConv"
    again = quantized(QuantizationConfig.from_json(asked.to_json()))
    assert again.model.SerializeToString() == mixed.model.SerializeToString()


def test_rounding_is_learned_for_a_weight_alone() -> None:
    """The tuned model is better than the one whose weights are rounded to the nearest."""
    types = {"body": ALONE, "late": ALONE}
    near, tuned = quantized(config(types, "S8S8_AAWS")), quantized(config(types, **TUNED))
    assert tuned.report.written["y"].db > near.report.written["y"].db + 3


def test_blocks_of_four_bits_run_on_their_kernel_beside_integers() -> None:
    needs_version("1.25", "MatMulNBits with a bias")
    result = quantized(config({"head": BLOCKS}, "S8S8_AAWS"))
    rows = {row.node: (row.status, row.kernel) for row in result.report.ledger}
    assert rows["head"] == ("integer", "MatMulNBits")
    assert rows["late"] == ("integer", "QLinearConv")
    assert rows["last"] == ("integer", "MatMulIntegerToFloat")
    other = quantized(config({"head": {**BLOCKS, "BlockSize": 24}}, "S8S8_AAWS"))
    assert kernels(other)["head"] != "MatMulNBits"


@pytest.mark.parametrize("extra", [{"WeightCalibrateMethod": "SeqMSE"}, {"BiasCorrection": True}], ids=str)
def test_scales_and_biases_are_corrected_for_both_kinds(extra: dict[str, Any]) -> None:
    types = {"body": ALONE, "head": BLOCKS}
    plain, better = (quantized(config(types, "S8S8_AAWS", **one)) for one in ({}, extra))
    assert {"stem", "body", "late", "head"} <= {record.node for record in better.report.tuned}
    assert better.report.written["y"].db > plain.report.written["y"].db


def test_a_plan_of_weights_alone_has_no_activations() -> None:
    result = quantized(config({"*": ALONE}, "INT8_PROTECTED"))
    assert {site.role for site in result.plan.sites.values()} == {"weight"}
    assert not result.report.protected and not result.report.warnings
    assert {row.status for row in result.report.ledger if row.op_type == "Conv"} == {"float"}


def test_wider_activations_of_one_layer() -> None:
    needs_version("1.32", "MatMulNBits beside 16 bits")
    wide = quantized(config({"last": {"activation_type": "int16"}}, "S8S8_AAWS"))
    formats = {tensor: site.format.bits for tensor, site in wide.plan.sites.items() if site.role == "activation"}
    assert formats.pop("nr") == 16 and set(formats.values()) == {8}
    assert kernels(wide)["last"] == "MatMulNBits"
    assert kernels(wide)["late"] == "QLinearConv"
