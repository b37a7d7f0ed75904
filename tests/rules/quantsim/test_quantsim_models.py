"""Which models a simulation takes, in which operator sets and widths, and which arguments it refuses."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import run as run_model
from simulations import FEEDS, LEAST, model, output, ready, simulation
from text_models import batchnorm, normal, text_model

from quark_onnx import ConfigError, DataError, ModelError
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel


def loud(sim: QuantizationSimModel, source: onnx.ModelProto) -> float:
    """Signal to noise against the float model, in dB, over the feeds that it was calibrated with."""
    want, got = (
        np.stack([f(feed)[0] for feed in FEEDS])
        for f in (lambda feed: run_model(io.load(source), feed), lambda feed: sim.session.run(None, feed))
    )
    return float(10 * np.log10(np.square(want).mean() / np.square(want - got).mean()))


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_every_width_runs_in_every_operator_set(opset: int) -> None:
    """6 dB per bit, of weights or activations, whichever are fewer: 8 more are 48 dB, of which 35 are asked for."""
    found = [
        loud(ready(opset=opset, default_param_bw=bits, default_output_bw=width), model(opset=opset))
        for bits, width in ((4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
    ]
    assert found == sorted(found)
    assert found[0] > 5
    assert found[2] > 30
    assert found[4] > found[2] + 35


def test_exact_and_fast_are_alike() -> None:
    """Normal numbers hardly ever lie on a tie."""
    np.testing.assert_allclose(output(ready(exact=True)), output(ready()), atol=1e-5)


def test_the_exact_session_rounds_ties_up() -> None:
    twins = [simulation(exact=exact, default_param_bw=16) for exact in (True, False)]
    at = {"x": np.full((1, 4, 8, 8), 0.5 / 16, np.float32)}
    for sim in twins:
        for tensor, quantizer in sim.qc_quantize_op_dict.items():
            quantizer.enabled = tensor == "x"
        sim.quantizer("x").set_fixed_encoding_range((0, 255 / 16))
    exact, fast = (output(sim, at) for sim in twins)
    want = [run_model(io.load(model()), {"x": np.full_like(at["x"], level)})[0] for level in (1 / 16, 0)]
    np.testing.assert_allclose(exact, want[0], atol=1e-6)
    np.testing.assert_allclose(fast, want[1], atol=1e-6)


BODY = """g (float[2,4] x, bool k) => (float[2,4] y) {
    m = MatMul(x,w)
    z = If (k) <then_branch = t () => (float[2,4] p) { p = Relu(m) },
                else_branch = e () => (float[2,4] q) { q = Neg(m) }>
    y = Sigmoid(z)
}"""


def test_bodies_read_what_is_quantized_outside() -> None:
    proto = text_model(BODY, w=normal(4, 4))
    feeds = [{"x": normal(2, 4, seed=i), "k": np.array(i % 2 == 0)} for i in range(4)]
    sim = QuantizationSimModel(proto)
    assert {"x", "w", "m", "z", "y"} == sim.qc_quantize_op_dict.keys()
    sim.compute_encodings(feeds)
    for feed in feeds:
        np.testing.assert_allclose(sim.session.run(None, feed)[0], run_model(io.load(proto), feed)[0], atol=0.03)


IMAGE = "g (float[1,4,8,8] x) => (float[A,B,C,D] y)"
WITH_CONSTANTS = {
    "joined to an activation": (
        f"{IMAGE} {{ a = Neg(x) d = Concat<axis=1>(a, k) y = Conv(d, w) }}",
        {"k": normal(1, 2, 8, 8), "w": normal(4, 6, 3, 3)},
        ("a", "k", "d"),
    ),
    "joined to constants": (
        f"{IMAGE} {{ d = Concat<axis=0>(k, c) y = Conv(x, d) }}",
        {"k": normal(2, 4, 3, 3), "c": normal(3, 4, 3, 3)},
        ("k", "c", "d"),
    ),
    "a token in front of patches": (
        "g (float[1,5,8] x) => (float[A,B,C] y) { p = MatMul(x, w) d = Concat<axis=1>(k, p) y = Add(d, b) }",
        {"k": normal(1, 1, 8), "w": normal(8, 8), "b": normal(1, 6, 8)},
        ("k", "p", "d"),
    ),
    "scattered": (
        "g (float[4,8] x) => (float[A,B] y) { a = Neg(x) d = ScatterND(a, i, k) y = MatMul(d, w) }",
        {"i": np.array([[1]]), "k": normal(1, 8), "w": normal(8, 3)},
        ("a", "k", "d"),
    ),
    "scattered by element": (
        "g (float[4,8] x) => (float[A,B] y) { d = ScatterElements<axis=1>(c, i, k) y = Add(d, x) }",
        {"i": np.array([[1], [2], [0], [7]]), "k": normal(4, 1), "c": normal(4, 8)},
        ("c", "k", "d"),
    ),
    "states of an LSTM": (
        "g (float[5,2,4] x) => (float[A,B,C,D] y) { d, h = LSTM<hidden_size=3>(x, w, r, b, n, k, c) y = Neg(d) }",
        {"w": normal(1, 12, 4), "r": normal(1, 12, 3), "b": normal(1, 24), "n": np.array([5, 3], np.int32)}
        | {"k": normal(1, 2, 3), "c": normal(1, 2, 3)},
        ("k", "d"),
    ),
    "the state of a GRU": (
        "g (float[5,2,4] x) => (float[A,B,C,D] y) { d, h = GRU<hidden_size=3>(x, w, r, b, n, k) y = Neg(d) }",
        {"w": normal(1, 9, 4), "r": normal(1, 9, 3), "b": normal(1, 18), "n": np.array([5, 3], np.int32)}
        | {"k": normal(1, 2, 3)},
        ("k", "d"),
    ),
}


@pytest.mark.parametrize(("text", "arrays", "shared"), WITH_CONSTANTS.values(), ids=WITH_CONSTANTS)
def test_constants_share_a_quantizer_with_what_they_are_joined_to(
    text: str, arrays: dict[str, np.ndarray], shared: tuple[str, ...]
) -> None:
    """None of their values is clipped: each comes back within half a step."""
    source = text_model(text, **arrays)
    feeds = [{"x": normal(*shape_of_x(source), seed=i)} for i in range(4)]
    sim = QuantizationSimModel(source, quant_scheme="min_max")
    sim.compute_encodings(feeds)
    joined = {sim.quantizer(tensor) for tensor in shared if sim.quantizer(tensor).enabled}
    assert len(joined) == 1
    quantizer = joined.pop()
    for tensor in set(arrays) & set(quantizer.tensors):
        back = quantizer.quantize_dequantize(arrays[tensor])
        assert np.abs(back - arrays[tensor]).max() <= sim.plan.qparams_of(tensor).scale * 0.51
    sim.session.run(None, feeds[0])
    sim.to_onnx_qdq()


def test_a_first_state_beyond_all_others_widens_their_range() -> None:
    """What the outputs hold is within ±1; a first state of 3 is part of the range, one of .1 changes nothing."""
    text, arrays, _ = WITH_CONSTANTS["the state of a GRU"]
    ends = {}
    for state in (0.1, 3.0):
        source = text_model(text, **{**arrays, "k": np.full((1, 2, 3), state, np.float32)})
        sim = QuantizationSimModel(source, quant_scheme="min_max")
        sim.compute_encodings([{"x": np.zeros((5, 2, 4), np.float32)}])
        (found,) = sim.quantizer("d").get_encodings() or ()
        ends[state] = found.max
    assert ends[0.1] <= 1 < 2.9 < ends[3.0]


def shape_of_x(source: onnx.ModelProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in source.graph.input[0].type.tensor_type.shape.dim)


def test_models_without_float32_are_refused() -> None:
    for kind in ("float16", "int64"):
        proto = text_model(f"g ({kind}[2,4] x) => ({kind}[2,4] y) {{ y = Add(x,x) }}")
        with pytest.raises(ModelError, match="no float32 tensors; convert it to float32"):
            QuantizationSimModel(proto)
    with pytest.raises(ModelError, match="quantized already"):
        QuantizationSimModel(ready().to_onnx_qdq())


def test_batch_normalizations_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    text = "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = BatchNormalization(x,gamma,beta,mean,var) }"
    with caplog.at_level(logging.WARNING, "quark_onnx"):
        simulation()
        assert caplog.text == ""
        QuantizationSimModel(text_model(text, **batchnorm(4)))
    assert "1 BatchNormalization operators" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quant_scheme": "tf_enhancedd"}, ConfigError, "'tf_enhancedd'; did you mean 'tf_enhanced'"),
        ({"default_param_bw": 1}, ConfigError, "default_param_bw must be a whole number from 2 to 31, not 1"),
        ({"default_output_bw": 32}, ConfigError, "default_output_bw"),
        ({"default_output_bw": 8, "default_activation_bw": 4}, ConfigError, "give one of them"),
        ({"config_file": "defalt"}, ConfigError, "did you mean 'default'"),
        ({"percentile": 101}, ConfigError, "Percentile"),
        ({"exact": "yes"}, ConfigError, "exact must be True or False"),
        ({"threads": -1}, ConfigError, "threads must be a whole number"),
        ({"dummy_input": {"z": FEEDS[0]["x"]}}, DataError, "no input 'z'"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        QuantizationSimModel(model(), **options)


def test_arguments_that_can() -> None:
    sim = QuantizationSimModel(model(), dummy_input=FEEDS[0], default_output_bw=4, default_activation_bw=4)
    assert {q.bitwidth for q in sim.get_all_quantizers()[1]} == {4}


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("op_type", {"Convv": {}}, r"op_type\.Convv: there is no operator 'Convv'; did you mean 'Conv'"),
        ("op_type", {"relu": {}}, r"op_type\.relu: .* did you mean 'Relu'"),
        ("supergroups", [{"op_list": ["Conv", "ReLU"]}], r"supergroups\[0\]\.op_list: .*'ReLU'.*'Relu'"),
    ],
)
def test_misspelt_operators_of_a_configuration_are_refused(section: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulation(config_file=LEAST | {section: value})


def test_operators_of_a_target_or_of_the_model_are_no_misspelt_ones() -> None:
    """AIMET's public files name a ChannelShuffle; operators of other domains may be called like those of ONNX."""
    others = {"ChannelShuffle": {}, "Sinh": {}, "Conv": {}}
    assert not simulation(config_file=LEAST | {"op_type": others}).plan.sites
    text = "g (float[1,4] x) => (float[1,4] y) { y = my.domain.Relu2(x) }"
    own = text_model(text)
    own.opset_import.add(domain="my.domain", version=1)
    assert QuantizationSimModel(own, config_file=LEAST | {"op_type": {"Relu2": {}}}).qc_quantize_op_dict
