"""Layers in another precision, by their sensitivity; and QDQ models of encodings files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from simulations import FEEDS, JOINED, encodings, model, output, ready

from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.quantsim import encodings_to_onnx_qdq, float16, int4, int8, int16
from quark_onnx.quantsim.lite_mp import flip_layers_to_higher_precision

SCORES = {"Conv_c": 30.0, "Conv_d": 10.0, "Sigmoid_y": 20.0, "Relu_r": 40.0}


def widths(sim: Any) -> dict[str, int]:
    """Of what is on."""
    return {tensor: q.bitwidth for tensor, q in sim.qc_quantize_op_dict.items() if q.enabled}


def test_the_names_above_are_those_of_the_model() -> None:
    assert {node.name for node in ready().float_model.graph} == SCORES.keys()


@pytest.mark.parametrize("percent", [0, 1, 25, 26, 50, 100])
def test_the_lowest_scores_go_first_rounded_up(percent: float) -> None:
    sim = ready()
    flip_layers_to_higher_precision(sim, SCORES, percent, int16)
    worst = sorted(SCORES, key=lambda node: SCORES[node])[: math.ceil(4 * percent / 100)]
    around = {"Conv_d": {"r", "v"}, "Sigmoid_y": {"y"}, "Conv_c": {"x", "w"}, "Relu_r": {"r"}}
    wide = set().union(*(around[node] for node in worst)) | ({"d"} & widths(sim).keys() if worst else set())
    assert {tensor for tensor, bits in widths(sim).items() if bits == 16} == wide
    sim.compute_encodings(FEEDS)
    output(sim)


@pytest.mark.parametrize(
    ("precision", "weight", "activation"),
    [(float16, None, None), ((int4, int16), 4, 16), (("int8", "float16"), 8, None), ("int16", 16, 16)],
)
def test_precisions(precision: Any, weight: int | None, activation: int | None) -> None:
    sim = ready()
    flip_layers_to_higher_precision(sim, {"Conv_c": 1.0, "Conv_d": 2.0}, 50, precision)
    assert (widths(sim).get("w"), widths(sim).get("x")) == (weight, activation)
    assert (widths(sim)["v"], widths(sim)["y"]) == (8, 8)


def test_what_is_off_stays_off() -> None:
    sim = ready()
    sim.quantizer("w").enabled = False
    flip_layers_to_higher_precision(sim, {"Conv_c": 1.0}, 100, int16)
    assert not sim.quantizer("w").enabled
    assert (sim.quantizer("w").bitwidth, sim.quantizer("x").bitwidth) == (8, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (({"Conv_e": 1.0}, 10, int16), "the model has no node 'Conv_e'; did you mean 'Conv_"),
        ((SCORES, 101, int16), "percent_to_flip"),
        ((SCORES, 10, "int16x"), "override_precision: unknown type 'int16x'"),
        ((SCORES, 10, (int8, int8, int8)), "a type, or two"),
        ((SCORES, 100, int16), "'v'.* is frozen"),
    ],
)
def test_what_is_refused_changes_nothing(given: Any, message: str) -> None:
    sim = ready()
    sim.quantizer("v").freeze_encodings()
    before = encodings(sim)
    with pytest.raises(ConfigError, match=message):
        flip_layers_to_higher_precision(sim, *given)
    assert encodings(sim) == before


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
def test_a_qdq_model_of_two_files_is_that_of_the_simulation(version: str, tmp_path: Path) -> None:
    sim = ready(JOINED, default_param_bw=4, default_activation_bw=16)
    sim.quantizer("y").enabled = False
    sim.export(tmp_path, "m", encoding_version=version)
    made = encodings_to_onnx_qdq(tmp_path / "m.onnx", tmp_path / "m.encodings")
    assert made.SerializeToString() == sim.to_onnx_qdq().SerializeToString()


def test_an_encoding_of_nothing_is_refused() -> None:
    document = {"version": "1.0.0", "activation_encodings": [], "param_encodings": []}
    entry = {
        "name": "xx",
        "enc_type": "PER_TENSOR",
        "dtype": "INT",
        "bw": 8,
        "is_sym": False,
        "scale": [1],
        "offset": [0],
    }
    document["activation_encodings"] = [entry]
    with pytest.raises(PlanError, match="the model has no float tensor 'xx'"):
        encodings_to_onnx_qdq(model(), document)
    found = encodings_to_onnx_qdq(model(), {**document, "activation_encodings": [{**entry, "name": "x"}]})
    assert [node.input[0] for node in found.graph.node if node.op_type == "QuantizeLinear"] == ["x"]


def test_parameters_as_floats_are_refused() -> None:
    document = {"version": "1.0.0", "activation_encodings": [], "param_encodings": []}
    with pytest.raises(ConfigError, match="prequantize_constants=False cannot be had"):
        encodings_to_onnx_qdq(model(), document, prequantize_constants=False)
    with pytest.raises(ConfigError, match="prequantize_constants=False cannot be had"):
        ready().to_onnx_qdq(prequantize_constants=False)
    sim = ready()
    assert sim.to_onnx_qdq(prequantize_constants=True) == sim.to_onnx_qdq()
