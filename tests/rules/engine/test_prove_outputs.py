"""As run against as written: what is told of a layer that saturates, of a bias that wraps, and of neither.

A processor with VNNI shows the first one, too: there the numpy arithmetic has the figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from saturation import kernels_saturate
from text_models import text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.records import Comparison, Measured, Slice
from quark_onnx.engine import product_arithmetic
from quark_onnx.engine.compare import compare, compare_ways
from quark_onnx.engine.departing_layers import departing_layers
from quark_onnx.engine.prove_outputs import departing, departs, prove_outputs
from quark_onnx.engine.result_wording import proof_warnings
from quark_onnx.engine.runtimes import onnxruntime_cpu
from quark_onnx.engine.runtimes.runtime import Run
from quark_onnx.engine.saturation_certificate import certify
from quark_onnx.graph import io
from quark_onnx.result import Report

SIGNS = np.where(np.arange(16) % 2, 1, -1).astype(np.float32)
FEEDS = [{"x": np.random.default_rng(i).standard_normal((8, 16)).astype(np.float32) + 2} for i in range(4)]
DENSE = "g (float[8, 16] x) => (float[8, 4] y) { [safe] h = Gemm (x, a) [large] y = Gemm (h, w) }"
CONV = """g (float[8, 16] x) => (float[8, 4, 1, 1] y) {
    c = Reshape (x, s) [safe] h = Conv (c, a) [large] y = Conv (h, w) }"""


def saturating(text: str = DENSE) -> onnx.ModelProto:
    """Weights of the first layer have signs in turn, so no pair of them is large; those of the second are equal."""
    first = np.diag(SIGNS) + SIGNS[:, None] * 0.25
    weights = {"a": first.astype(np.float32), "w": np.full((16, 4), 0.25, np.float32)}
    if text is CONV:
        weights = {name: np.ascontiguousarray(w.T)[:, :, None, None] for name, w in weights.items()}
        weights["s"] = np.array([8, 16, 1, 1])
    return text_model(text, **weights)


class Reader(CalibrationDataReader):
    """The samples for onnxruntime's own quantizer."""

    def __init__(self) -> None:
        self.left = iter(FEEDS)

    def get_next(self) -> Any:
        return next(self.left, None)


def report(text: str = DENSE, **fields: Any) -> Report:
    config = replace(get_default_config("S8S8_AAWS"), **fields)
    return ModelQuantizer(config).quantize_model(saturating(text), None, FEEDS).report


def told_of_saturation(warnings: tuple[str, ...]) -> None:
    (told,) = [text for text in warnings if "as it is written" in text]
    where = "as onnxruntime runs it on this processor" if kernels_saturate() else "on x64 without VNNI"
    assert where in told and "the first to differ: large:" in told and "added in 16 bits" in told
    assert "weight_pairs auto" in told and "`" not in told


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("text", [DENSE, CONV], ids=["Gemm", "Conv"])
def test_a_layer_that_saturates_is_named(text: str, per_channel: bool) -> None:
    found = report(text, weight_pairs="off", per_channel=per_channel)
    there = found.departure
    assert there is not None and (there.here, there.layers, there.cause) == (
        kernels_saturate(),
        ("large",),
        "saturation",
    )
    assert there.run.db is not None and there.written.db is not None and there.written.db - there.run.db > 10
    assert bool(found.without_vnni.outputs) is not kernels_saturate()
    told_of_saturation(found.warnings)
    assert found.to_dict()["written"]["y"]["values"] == found.written["y"].values == 4 * 8 * 4


@pytest.mark.parametrize("fields", [{}, {"target": "cpu-avx2"}, {"weight_pairs": "uint8"}], ids=str)
def test_nothing_is_told_of_models_that_are_exact(fields: dict[str, str]) -> None:
    found = report(**fields)
    assert found.departure is None and not found.without_vnni.outputs and found.warnings == ()
    run, written = found.outputs["y"].db, found.written["y"].db
    assert run is not None and written is not None and abs(run - written) < 2 and min(run, written) > 30


def test_another_target_is_not_blamed_for_this_processor() -> None:
    """Its weights may saturate here, which says nothing of where it is to run; elsewhere it is not looked at."""
    found = report(target="qnn", activation_type="uint8")
    assert not found.without_vnni.outputs and (found.departure is not None) is kernels_saturate()
    assert all(
        "for qnn" in text and "weight_pairs" not in text for text in found.warnings if "as it is written" in text
    )


def test_a_model_of_another_tool_saturates_too(tmp_path: Any) -> None:
    """onnxruntime's own: int8 activations."""
    onnx.save(saturating(), tmp_path / "m.onnx")
    signed = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(
        tmp_path / "m.onnx", tmp_path / "q.onnx", Reader(), extra_options={"ActivationSymmetric": False}, **signed
    )
    model, quantized = io.load(tmp_path / "m.onnx"), io.load(tmp_path / "q.onnx")
    told_of_saturation(proof_warnings(prove_outputs(model, quantized, FEEDS, certify(quantized))))


def wrapping(bias: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model with tiny weights and a bias of so many steps, as floats and as integers."""
    step = 2.0**-20
    text = f"""g (float[8, 16] x) => (float[8, 4] y)
        <float s = {{0.03125}}, uint8 z = {{0}}, float t = {{{step}}}, float u = {{{step * 0.03125}}},
         float v = {{0.25}}, int8 o = {{0}}, int32 n = {{0}}> {{
        q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
        w = DequantizeLinear (c, t, o) b = DequantizeLinear (k, u, n)
        [layer] g = Gemm (d, w, b) p = QuantizeLinear (g, v, z) y = DequantizeLinear (p, v, z) }}"""
    codes, shift = np.full((16, 4), 100, np.int8), np.full(4, bias, np.int32)
    floats = "g (float[8, 16] x) => (float[8, 4] y) { y = Gemm (x, w, b) }"
    model = text_model(floats, w=codes * np.float32(step), b=np.float32(shift * (step * 0.03125)))
    return model, text_model(text, c=codes, k=shift)


def test_a_bias_that_wraps_is_named() -> None:
    model, quantized = (io.load(proto) for proto in wrapping(2**31 - 1000))
    proof = prove_outputs(model, quantized, FEEDS, certify(quantized))
    there = proof.departure
    assert there is not None and there.here and (there.layers, there.cause) == (("layer",), "wrap")
    (told,) = proof_warnings(proof)
    assert "the sum wraps" in told and "weight_pairs" not in told


def test_a_bias_that_leaves_room_runs_as_written() -> None:
    model, quantized = (io.load(proto) for proto in wrapping(2**30))
    assert prove_outputs(model, quantized, FEEDS, {}).departure is None and departing_layers(quantized, FEEDS)[0] == []


@pytest.mark.parametrize(("large", "cause"), [(0, None), (50, "rounded input")])
def test_a_large_float_beside_others_is_rounded_with_them(large: float, cause: str | None) -> None:
    """By the kernel for weights in blocks, which has 8 bits for all of them."""
    config = replace(get_default_config("MATMUL_NBITS"), extra_options={"WeightsOnly": True, "BlockSize": 16})
    exact = np.tile(np.r_[0, np.arange(-7, 8)].astype(np.float32)[:, None], (1, 4))
    model = text_model("g (float[8, 16] x) => (float[8, 4] y) { [layer] y = MatMul (x, w) }", w=exact)
    feeds = [{"x": np.where(np.arange(16) == 0, np.float32(large), feed["x"])} for feed in FEEDS]
    found = ModelQuantizer(config).quantize_model(model, None, feeds).report
    assert (found.departure and found.departure.cause) == cause
    assert any("session.qdq_matmulnbits_accuracy_level" in told for told in found.warnings) == bool(large)


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("onnxruntime", "d = Identity (x) [layer] y = MatMul (d, w)", "rounded input"),
        ("third", "d = Identity (x) [layer] y = MatMul (d, w)", "kernel"),
        ("onnxruntime", "d = Reshape (x, r) h = Conv (d, k) [layer] y = Relu (h)", "kernel"),
    ],
)
def test_only_products_in_onnxruntime_have_a_kernel_that_rounds(name: str, text: str, cause: str) -> None:
    shapes = "float[8, 16] x) => (float[A, B] y" if "MatMul" in text else "float[8, 16] x) => (float[A, B, C, D] y"
    quantized = text_model(
        f"""g ({shapes}) <float s = {{0.25}}, int8 z = {{0}}> {{
            w = DequantizeLinear (c, s, z) k = DequantizeLinear (e, s, z) {text} }}""",
        c=np.full((16, 4), 3, np.int8),
        e=np.full((4, 16, 1, 1), 3, np.int8),
        r=np.array([8, 16, 1, 1]),
    )

    def halves(*args: Any, **more: Any) -> Run:
        run = onnxruntime_cpu.load(*args, **more)
        return lambda feed: [array / 2 for array in run(feed)]

    runtime = replace(onnxruntime_cpu.RUNTIME, name=name, load=halves, certify=lambda model: {})
    assert departing_layers(io.load(quantized), FEEDS, runtime)[1] == cause


def test_what_cannot_be_computed_is_said_to_be_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_arithmetic, "UNKNOWN", ("QGemm",))
    if kernels_saturate():
        pytest.skip("the model as run has the figure")
    found = report(weight_pairs="off")
    (told,) = found.warnings
    assert "was not measured: QGemm" in told and found.departure is None and not found.without_vnni.outputs


def test_both_ways_are_those_of_one_way_and_samples_may_be_a_stream() -> None:
    model = io.load(saturating())
    config = replace(get_default_config("S8S8_AAWS"), weight_pairs="off")
    quantized = io.load(ModelQuantizer(config).quantize_model(saturating(), None, FEEDS).model)

    def stream() -> Iterator[dict[str, np.ndarray]]:
        yield from FEEDS

    both = compare_ways(model, quantized, stream(), ("run", "written"))
    assert both == [compare(model, quantized, FEEDS, optimized=flag) for flag in (True, False)]
    proof = prove_outputs(model, quantized, stream(), {})
    assert [proof.run, proof.written] == both
    assert prove_outputs(model, quantized, (), {}).run.samples == 0


def ratio(db: float, values: int = 10_000, **more: Any) -> Measured:
    return Measured(values, db, **more)


@pytest.mark.parametrize(
    ("run", "written", "due"),
    [
        (ratio(12.0), ratio(15.0), True),
        (ratio(12.0), ratio(13.9), False),
        (ratio(15.0), ratio(12.0), False),
        (ratio(50.0), ratio(90.0), False),  # a step of the last quantizer
        (ratio(30.0), ratio(90.0), True),
        (ratio(12.0, 16), ratio(18.0, 16), False),  # 16 numbers know no better than 6.5 dB
        (ratio(12.0, 16), ratio(21.0, 16), True),
        (ratio(30.0, worst=Slice(1, 4, 10.0)), ratio(30.0, worst=Slice(1, 4, 13.5)), False),  # 256 numbers: 1.6 dB
        (ratio(30.0, worst=Slice(1, 4, 10.0)), ratio(30.0, worst=Slice(1, 5, 14.0)), True),
        (ratio(-np.inf), ratio(30.0), True),  # NaN as run only
        (Measured(16, equal=15 / 16), Measured(16, equal=1.0), False),  # one label
        (Measured(1000, equal=0.9), Measured(1000, equal=0.99), True),
        (Measured(), Measured(), False),
        (Measured(), ratio(30.0), False),
    ],
)
def test_more_than_noise_and_chance_explain(run: Measured, written: Measured, due: bool) -> None:
    assert departs(run, written) is due


def judged(whole: float, worst: float) -> Comparison:
    return Comparison({"y": Measured(10000, sqnr=whole, worst=Slice(1, 5, worst))}, 4)


@pytest.mark.parametrize(
    ("run", "due"),
    [((17.0, 0.0), (17.0, 31.0)), ((31.0, 0.0), None), ((31.0, -9.0), (-9.0, 2.0)), ((17.0, -9.0), (-9.0, 2.0))],
    ids=["the whole", "neither", "the slice", "both"],
)
def test_a_slice_that_is_lost_either_way_does_not_hide_the_whole(
    run: tuple[float, float], due: tuple[float, float] | None
) -> None:
    written = judged(31.0, 2.0)
    found = departing(judged(*run), written, written)
    assert (None if found is None else (found[1].db, found[2].db)) == due
