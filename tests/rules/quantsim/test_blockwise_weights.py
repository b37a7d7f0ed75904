"""Scales for blocks of input channels in a simulation: which weights have them, what they are worth, where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from simulations import encodings
from text_models import normal, text_model

from quark_onnx.core.errors import ConfigError
from quark_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim
from quark_onnx.quantsim.quantsim import set_blockwise_quantization_for_weights

LAYERS = """g (float[N,8,2,2] x) => (float[N,6] y) {
    k = Conv<pads=[1,1,1,1]>(x, w3)
    c = Conv(k, w1)
    p = GlobalAveragePool(c) f = Flatten(p)
    m = MatMul(f, w) y = Gemm<transB=1>(m, v, b)
}"""
FEEDS = [{"x": normal(3, 8, 2, 2, seed=seed)} for seed in range(3)]
TYPES = ("Conv", "MatMul", "Gemm")


def model() -> onnx.ModelProto:
    arrays = {
        "w3": normal(8, 8, 3, 3),
        "w1": normal(8, 8, 1, 1),
        "w": normal(8, 16),
        "v": normal(6, 16),
        "b": normal(6),
    }
    arrays["w"][:4] *= 200  # a block of much larger numbers than the other one of its column
    return text_model(LAYERS, 17, **arrays)


def blocked(*args: Any, **options: Any) -> QuantizationSimModel:
    sim = QuantizationSimModel(model(), param_type="int8", activation_type="int8")
    set_blockwise_quantization_for_weights(sim, *args, **options)
    return sim


def scales(sim: QuantizationSimModel) -> dict[str, int]:
    """How many each weight has."""
    sim.compute_encodings(FEEDS)
    return {tensor: len(sim.quantizer(tensor).get_encodings() or []) for tensor in ("w3", "w1", "w", "v")}


@pytest.mark.parametrize(
    ("types", "size", "excluded", "expected"),
    [
        (TYPES, 4, (), {"w3": 8, "w1": 8 * 2, "w": 2 * 16, "v": 6 * 4}),
        ("MatMul", 4, (), {"w3": 8, "w1": 8, "w": 2 * 16, "v": 6}),
        (["MatMul", "Gemm"], 8, ["MatMul_m"], {"w3": 8, "w1": 8, "w": 16, "v": 6 * 2}),
        (TYPES, 16, (), {"w3": 8, "w1": 8, "w": 16, "v": 6}),  # the others have 8 input channels
    ],
)
def test_which_weights_have_blocks(types: Any, size: int, excluded: Any, expected: dict[str, int]) -> None:
    assert scales(blocked(types, 4, True, size, nodes_to_exclude=excluded)) == expected


@pytest.mark.parametrize("symmetric", [False, True])
def test_blocks_follow_their_numbers(symmetric: bool) -> None:
    sim = blocked(["MatMul"], 4, symmetric, 4)
    sim.compute_encodings(FEEDS)
    quantizer = sim.quantizer("w")
    assert (quantizer.bitwidth, quantizer.use_symmetric_encodings) == (4, symmetric)
    deltas = np.array([e.delta for e in quantizer.get_encodings() or []]).reshape(2, 16)
    assert (deltas[0] > 5 * deltas[1]).all()


def test_files_and_models_hold_them(tmp_path: Path) -> None:
    sim = blocked(["MatMul", "Gemm"], 4, True, 4)
    sim.compute_encodings(FEEDS)
    want = sim.session.run(None, FEEDS[0])[0]
    session = ort.InferenceSession(sim.to_onnx_qdq().SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, FEEDS[0])[0], want, atol=1e-5)
    for version in ("1.0.0", "2.0.0"):
        sim.export(tmp_path, "m", encoding_version=version)
        again = blocked(["MatMul", "Gemm"], 4, True, 4)
        assert load_encodings_to_sim(again, tmp_path / "m.encodings") == []
        assert encodings(again) == encodings(sim)


def test_a_weight_without_blocks_is_told(caplog: pytest.LogCaptureFixture) -> None:
    blocked(TYPES, 4, True, 4)
    assert "'w3' stays as it is, without blocks of 4: its shape is [8, 8, 3, 3]" in caplog.text
    assert "'w1'" not in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((TYPES, 4, True, 4, True), "'w3' cannot have blocks of 4: its shape is"),
        ((["MatMul"], 4, True, 3, True), "'w' cannot have blocks of 3: its 8 input channels are no multiple"),
        ((["MatMull"], 4, True, 4), "op_types: unknown value 'MatMull'; did you mean 'MatMul'"),
        ((["MatMul"], 1, True, 4), "bitwidth must be a whole number from 2 to 31"),
        ((["MatMul"], 4, "yes", 4), "symmetric must be True or False"),
        ((["MatMul"], 4, True, 0), "block_size must be"),
        ((["MatMul"], 4, True, 4, False, ["m"]), "nodes_to_exclude: the model has no layer 'm'"),
        ((TYPES, 4, True, 4), "'v' is frozen"),
    ],
)
def test_what_is_refused_changes_nothing(args: Any, message: str) -> None:
    sim = QuantizationSimModel(model())
    sim.compute_encodings(FEEDS)
    sim.quantizer("v").freeze_encodings()
    before = encodings(sim)
    with pytest.raises(ConfigError, match=message):
        set_blockwise_quantization_for_weights(sim, *args)
    assert encodings(sim) == before


@pytest.mark.parametrize(
    ("tensor", "axis", "size", "message"),
    [
        ("w", 2, 4, "axis must be a whole number from 0 to 1"),
        ("w", 0, 3, "block_size 3 does not divide the 8 of axis 0"),
        ("w", 0, 16, "block_size must be a whole number from 1 to 8"),
        ("k", 0, 1, "has one scale: only weights have blocks"),
    ],
)
def test_blocks_that_a_tensor_cannot_have_are_refused(tensor: str, axis: int, size: int, message: str) -> None:
    quantizer = QuantizationSimModel(model()).quantizer(tensor)
    before = quantizer.format
    with pytest.raises(ConfigError, match=message):
        quantizer.enable_blockwise_quantization(axis, size)
    assert quantizer.format == before


def test_a_fixed_range_holds_for_every_block() -> None:
    sim = blocked("MatMul", 4, symmetric=True, block_size=4)
    sim.quantizer("w").set_fixed_encoding_range((-7, 7))
    sim.compute_encodings(FEEDS)
    found = sim.quantizer("w").get_encodings() or []
    assert len(found) == 2 * 16
    assert len({(e.min, e.max) for e in found}) == 1
    assert found[0].max == pytest.approx(7)
    assert np.isfinite(sim.session.run(None, FEEDS[0])[0]).all()
