"""`sim.train`: the simulated model trained as a whole, what is frozen left alone, and never for the worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations import encodings
from text_models import normal, text_model

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.graph.view import constant
from quark_onnx.quantsim import QuantizationSimModel, QuantScheme, apply_adaround, load_encodings_to_sim
from quark_onnx.quantsim.training import settings_for

TEXT = """g (float[N,6] x) => (float[N,5] y) {
    [p] a = Gemm (x, v, c) b = Relu (a) [q] d = Gemm (b, w, e) f = Relu (d) [r] y = Gemm (f, u, h) }"""
LEARNS, FIXED = "training_range_learning_with_tf_init", "post_training_tf"
X = normal(96, 6)
FAST: dict[str, Any] = {"epochs": 4, "learning_rate": 0.01, "scale_learning_rate": 0.01}


def ready(scheme: str = LEARNS, bits: int = 3) -> QuantizationSimModel:
    shapes = {"v": (6, 8), "w": (8, 8), "u": (8, 5), "c": (8,), "e": (8,), "h": (5,)}
    arrays = {name: normal(*shape, seed=seed) / 2 for seed, (name, shape) in enumerate(shapes.items())}
    config = {"quant_scheme": scheme, "config_file": "default_per_tensor", "threads": 1}
    sim = QuantizationSimModel(text_model(TEXT, **arrays), default_param_bw=bits, default_output_bw=4, **config)
    sim.compute_encodings(X)
    return sim


def made(sim: QuantizationSimModel) -> np.ndarray:
    found: np.ndarray = sim.session.run(None, {"x": X})[0]
    return found


def array(sim: QuantizationSimModel, name: str) -> np.ndarray:
    found = constant(sim.float_model.graph.initializers[name])
    assert found is not None
    return np.array(found)


def scales(sim: QuantizationSimModel) -> dict[str, Any]:
    """Of what is on: steps of the grids."""
    return {t: [e.delta for e in found or ()] for t, (on, found) in encodings(sim).items() if on}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {tensor for tensor in before if before[tensor] != after[tensor]}


def test_training_comes_nearer_to_the_float_model(tmp_path: Path) -> None:
    sim = ready()
    wanted = Runner(sim.float_model)({"x": X})[0]
    far = np.square(made(sim) - wanted).mean()
    record = sim.train(X, **FAST)
    assert record.accepted and record.best.held < 0.7 * record.curve[0].held
    assert np.square(made(sim) - wanted).mean() < 0.8 * far
    written = Runner(io.load(sim.to_onnx_qdq(export_int32_bias=False)), optimized=False)({"x": X})[0]
    assert np.mean(np.abs(written - made(sim)) < 1e-4) > 0.97  # others lie between two codes, and sums have orders
    sim.export(tmp_path, "trained")
    again = QuantizationSimModel(
        tmp_path / "trained.onnx", default_param_bw=3, default_output_bw=4, config_file="default_per_tensor", threads=1
    )
    assert load_encodings_to_sim(again, tmp_path / "trained.encodings") == []
    assert np.array_equal(made(again), made(sim))


def test_labels_are_another_teacher() -> None:
    labels = (X[:, 0] > 0).astype(int) + 3 * (X[:, 1] > 0)  # which the float model knows nothing of
    right = {}
    for name, losses in {"labels": {"kl": 0, "cross_entropy": 1}, "float": {"kl": 1}}.items():
        sim = ready(bits=8)
        many = {"epochs": 12, "batch_size": 8, "learning_rate": 0.05}
        sim.train(X, labels if name == "labels" else None, losses=losses, holdout=0, **many)
        right[name] = float((made(sim).argmax(1) == labels).mean())
    assert right["labels"] > right["float"] + 0.2


@pytest.mark.parametrize(("scheme", "learned"), [(LEARNS, True), (FIXED, False)])
def test_ranges_are_learned_by_the_schemes_that_say_so(scheme: str, learned: bool) -> None:
    sim = ready(scheme)
    before, weights = scales(sim), array(sim, "w")
    assert sim.train(X, **FAST).accepted
    moved = changed(before, scales(sim))
    assert ({"v", "w", "u"} <= moved and {"x", "b", "f"} & moved) if learned else not moved
    assert not np.array_equal(array(sim, "w"), weights)
    assert all(sim.quantizer(tensor).is_encoding_frozen() for tensor in ("v", "w", "u", *moved))


def test_what_is_frozen_stays_and_its_weights_are_trained_on_its_grid() -> None:
    sim = ready()
    for tensor in ("w", "b"):
        sim.quantizer(tensor).freeze_encodings()
    before, weights = scales(sim), array(sim, "w")
    assert sim.train(X, **FAST).accepted
    moved = changed(before, scales(sim))
    assert not {"w", "b"} & moved and {"v", "u"} <= moved
    codes = array(sim, "w") / before["w"]
    assert np.allclose(codes, np.rint(codes), atol=1e-4) and not np.array_equal(array(sim, "w"), weights)


def test_training_begins_where_adaround_ended() -> None:
    sim = ready()
    apply_adaround(sim, X)
    sim.compute_encodings(X)
    rounded, outputs = array(sim, "w"), made(sim)
    grid = scales(sim)["w"]
    record = sim.train(X, **FAST | {"learning_rate": 1e-9, "scale_learning_rate": 1e-9})
    assert np.array_equal(array(sim, "w"), rounded) and np.allclose(made(sim), outputs, atol=1e-5)
    assert record.curve[0].held == pytest.approx(record.curve[-1].held)
    assert sim.train(X, **FAST).accepted and scales(sim)["w"] == grid  # frozen


def test_where_nothing_is_better_all_stays(caplog: pytest.LogCaptureFixture) -> None:
    sim = ready()
    before, outputs = encodings(sim), made(sim)
    assert not sim.train(X, epochs=1, learning_rate=30.0, scale_learning_rate=5.0).accepted
    assert encodings(sim) == before and np.array_equal(made(sim), outputs)
    assert not sim.quantizer("w").is_encoding_frozen()
    assert "nothing better" in caplog.text


def test_the_guide_is_the_default() -> None:
    for name, learned in ((LEARNS, True), ("training_range_learning_with_tf_enhanced_init", True), (FIXED, False)):
        found = settings_for(QuantScheme[name], {})
        assert 15 <= found.epochs <= 20 and 5 <= found.step_epochs <= 10 and found.step_factor == 0.1
        assert found.schedule == "step" and found.weights and found.biases
        assert found.weight_scales is found.activation_ranges is learned
    assert settings_for(QuantScheme[FIXED], {"epochs": 3, "weight_scales": True}) == QAT(
        epochs=3, schedule="step", step_epochs=10, activation_ranges=False
    )


def test_what_is_refused() -> None:
    sim = QuantizationSimModel(text_model(TEXT, **{n: array(ready(), n) for n in "vwuceh"}), threads=1)
    with pytest.raises(ConfigError, match=r"no encoding for .* call compute_encodings"):
        sim.train(X)
    sim = ready()
    before = encodings(sim)
    with pytest.raises(ConfigError, match="unknown setting 'epoch'; did you mean 'epochs'"):
        sim.train(X, epoch=3)
    with pytest.raises(DataError, match="there are 3 labels, and the 96 samples need one each"):
        sim.train(X, [0, 1, 2])
    with pytest.raises(DataError, match="labels are no class, first 95 of sample 95"):
        sim.train(X, np.where(np.arange(96) == 95, 95, 0))
    with pytest.raises(ConfigError, match="augment is in place of flip and crop"):
        sim.train(X, augment=lambda feed, chance: feed, flip=True)
    assert encodings(sim) == before
