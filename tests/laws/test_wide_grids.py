"""Grids of 17 to 31 bits: what they are accurate to, that arrays and graphs agree to the bit, what may hold them.

A step of such a grid is 2⁻¹⁷ of the range and less: what it makes of a value is off by half a step, and by the rounding
of the result to float32, 2⁻²⁴ of it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from simulations import FEEDS, encodings, model, output, ready, simulation

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.encodings import read
from quark_onnx.numerics.quantizer import dequantize, ends, qparams, quantize_half_up
from quark_onnx.quantsim import (
    Adaround,
    AdaroundParameters,
    QuantizationSimModel,
    QuantParams,
    apply_adaround,
    apply_seq_mse,
    correct_bias,
    fine_tune,
    load_encodings_to_sim,
    protect,
)

WIDE = st.integers(17, 31)
FORMATS = st.builds(Format, WIDE, st.booleans(), st.booleans(), strict=st.booleans())
RANGES = st.tuples(st.floats(-1e3, 0, width=32), st.floats(2**-10, 1e3, width=32))
ROUNDING = 2.0**-24
"""Of a float32, relative."""


@given(format=FORMATS, range=RANGES, seed=st.integers(0, 99))
def test_a_value_inside_the_range_is_off_by_half_a_step(format: Format, range: tuple[float, float], seed: int) -> None:
    q = qparams(*range, format)
    low, high = ends(q, format)
    values = np.random.default_rng(seed).uniform(max(low, range[0]), min(high, range[1]), 200).astype(np.float32)
    values = values[(values >= low) & (values <= high)]
    found = dequantize(quantize_half_up(values, q, format), q, format)
    room = 0.5 * float(q.scale) * (1 + 1e-6) + 2 * ROUNDING * np.abs(values).astype(np.float64)
    assert (np.abs(found.astype(np.float64) - values) <= room).all()


@given(format=FORMATS, range=RANGES)
def test_codes_stay_inside_the_grid(format: Format, range: tuple[float, float]) -> None:
    q = qparams(*range, format)
    codes = quantize_half_up(np.array([-np.inf, -3e38, 0, 3e38, np.inf], np.float32), q, format)
    assert codes.tolist()[:2] == [format.lo] * 2
    assert codes.tolist()[3:] == [format.hi] * 2
    assert codes[2] == q.zero_point  # zero is exact


@given(format=FORMATS, range=RANGES, seed=st.integers(0, 99))
def test_what_is_on_the_grid_stays(format: Format, range: tuple[float, float], seed: int) -> None:
    """Up to 24 bits float32 holds every value of a grid apart from the next one."""
    format = replace(format, bits=min(format.bits, 23))
    q = qparams(*range, format)
    codes = np.random.default_rng(seed).integers(format.lo, format.hi, 200, np.int32, endpoint=True)
    np.testing.assert_array_equal(quantize_half_up(dequantize(codes, q, format), q, format), codes)


@pytest.mark.parametrize("bits", [17, 20, 24, 31])
@pytest.mark.parametrize("symmetric", [False, True])
def test_array_and_graph_agree_to_the_bit(bits: int, symmetric: bool) -> None:
    """The output's quantizer alone is on; the float output comes from the same session options."""
    sim = simulation(quant_scheme="min_max", exact=True)
    off(sim)
    floats = output(sim)
    quantizer = sim.quantizer("y")
    quantizer.use_symmetric_encodings, quantizer.bitwidth, quantizer.enabled = symmetric, bits, True
    sim.compute_encodings(FEEDS[:1])
    np.testing.assert_array_equal(output(sim), quantizer.quantize_dequantize(floats))
    fast = [node.op_type for node in sim.model.graph.node]
    assert "QuantizeLinear" not in fast and "Floor" in fast


@pytest.mark.parametrize("scheme", ["min_max", "tf_enhanced"])
def test_each_bit_more_is_nearer_to_the_float_model(scheme: str) -> None:
    floats = simulation(exact=True)
    off(floats)
    want = output(floats)
    errors = []
    for bits in (16, 17, 20, 23):
        sim = ready(default_param_bw=bits, default_activation_bw=bits, quant_scheme=scheme, exact=True)
        errors.append(float(np.abs(output(sim) - want).max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2**5


@pytest.mark.parametrize(("param", "activation", "named"), [(17, 8, "'w'"), (8, 31, "'x'"), (16, 16, None)])
def test_no_quantized_model_has_them(param: int, activation: int, named: str | None) -> None:
    sim = ready(default_param_bw=param, default_activation_bw=activation)
    if named is None:
        sim.to_onnx_qdq()
        return
    with pytest.raises(ConfigError, match=f"{named} has .* bits, and QuantizeLinear has 16 at most"):
        sim.to_onnx_qdq()


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
def test_encodings_there_and_back(version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sim = ready(default_param_bw=20, default_activation_bw=31)
    with caplog.at_level(logging.WARNING):
        sim.export(tmp_path, "m", encoding_version=version)
    assert caplog.records == []
    again = simulation(default_param_bw=20, default_activation_bw=31)
    assert load_encodings_to_sim(again, tmp_path / "m.encodings") == []
    np.testing.assert_array_equal(output(again), output(sim))


def test_tuning_takes_them_for_float() -> None:
    """What is narrow is tuned, what is wide keeps its grid and its weights."""
    for tune in (
        lambda s: apply_adaround(s, FEEDS, 3),
        lambda s: apply_seq_mse(s, FEEDS),
        lambda s: fine_tune(s, FEEDS),
    ):
        sim = ready(default_param_bw=4, default_activation_bw=20)
        sim.quantizer("v").bitwidth = 24
        sim.compute_encodings(FEEDS)
        before = encodings(sim)["v"]
        tune(sim)
        assert encodings(sim)["v"] == before
        assert np.isfinite(output(sim)).all()


def test_a_simulation_with_them_is_protected() -> None:
    sim = ready(default_param_bw=24, default_activation_bw=20)
    before = encodings(sim)
    assert protect(sim, FEEDS) == ()
    assert encodings(sim) == before


def test_adaround_writes_their_encodings(tmp_path: Path) -> None:
    params = AdaroundParameters(FEEDS, 4, 3)
    rounded = Adaround.apply_adaround(model(), params, tmp_path, "m", 31, param_bw_override_list=[("w", 4)])
    found = read(tmp_path / "m.encodings", ["w", "v"]).parameters
    assert {tensor: encoding.bits for tensor, encoding in found.items()} == {"w": 4, "v": 31}
    sim = QuantizationSimModel(rounded, default_param_bw=31)
    sim.set_and_freeze_param_encodings(tmp_path / "m.encodings")
    sim.compute_encodings(FEEDS)
    assert np.isfinite(output(sim)).all()


def test_biases_are_corrected_for_them() -> None:
    wide = correct_bias(model(), QuantParams(weight_bw=31, act_bw=31), 4, FEEDS, 4)
    found, before = (
        next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "b") for proto in (wide, model())
    )
    np.testing.assert_allclose(found, before, atol=1e-5)  # there is next to nothing to correct


def off(sim: QuantizationSimModel) -> None:
    """All quantizers."""
    for quantizer in sim.qc_quantize_op_dict.values():
        quantizer.enabled = False
