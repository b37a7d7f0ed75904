"""What QuantAnalyzer writes: the scores of the functions it stands on, the ranges, and the error of every layer."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations import FEEDS, model, ready
from text_models import batchnorm, text_model

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel, analyze_per_layer_sensitivity, make_psnr_eval_fn
from quark_onnx.quantsim.common.defs import CallbackFunc, QuantScheme
from quark_onnx.quantsim.quant_analyzer import QuantAnalyzer

NORM = "g (float[N,4] x) => (float[N,4] y) { m = MatMul(x, w) y = BatchNormalization(m, gamma, beta, mean, var) }"


def forward(session: Any, count: Any) -> None:
    for feed in FEEDS[:count]:
        session.run(None, feed)


def analyzer(**changed: Any) -> QuantAnalyzer:
    psnr = make_psnr_eval_fn(model(), FEEDS[:1])
    calls: dict[str, Any] = {
        "forward_pass_callback": CallbackFunc(forward, func_callback_args=4),
        "eval_callback": CallbackFunc(lambda session, _: psnr(session)),
    }
    return QuantAnalyzer(model(), FEEDS[0], **(calls | changed))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_files_hold_what_the_functions_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        analyzer().analyze(QuantScheme.post_training_tf, 4, 8, results_dir=tmp_path)
    sim = ready(quant_scheme="min_max", default_param_bw=4)
    psnr = make_psnr_eval_fn(model(), FEEDS[:1])
    for name, enabled in (("enabled", True), ("disabled", False)):
        assert read(tmp_path / f"per_layer_quant_{name}.json") == pytest.approx(
            analyze_per_layer_sensitivity(sim, psnr, enabled=enabled)
        )
    weights, activations = (read(tmp_path / f"min_max_ranges/{name}.json") for name in ("weights", "activations"))
    assert len(weights["w"]) == 4  # one for each channel
    (encoding,) = sim.quantizer("x").get_encodings() or []
    assert activations["x"] == [encoding.min, encoding.max]
    assert weights.keys() | activations.keys() == {t for t, q in sim.qc_quantize_op_dict.items() if q.enabled}
    assert not (tmp_path / "per_layer_mse_loss.json").exists()
    for text in ("float model: ", "parameters alone quantized", "activations alone quantized"):
        assert text in caplog.text


def test_the_error_of_every_layer(tmp_path: Path) -> None:
    one = analyzer()
    one.enable_per_layer_mse_loss([feed["x"] for feed in FEEDS], num_batches=2)
    one.analyze(results_dir=tmp_path)
    found = read(tmp_path / "per_layer_mse_loss.json")
    sim = ready()
    assert list(found) == [node.name for node in sim.float_model.graph]
    floats = QuantizationSimModel(model())
    for quantizer in floats.qc_quantize_op_dict.values():
        quantizer.enabled = False
    pairs = [[s.session.run(None, feed)[0] for s in (sim, floats)] for feed in FEEDS[:2]]
    want = np.mean([(x.astype(float) - y) ** 2 for x, y in pairs])
    assert found["Sigmoid_y"] == pytest.approx(want, rel=1e-3)
    assert all(error > 0 for error in found.values())
    # inside, an output is what its quantizer makes of it
    inner = [Runner(io.with_outputs(io.load(proto), ["r"]), ["r"], fuse=False) for proto in (sim.model, model())]
    tensors = [[np.asarray(run(feed)[0]) for run in inner] for feed in FEEDS[:2]]
    quantize = sim.quantizer("r").quantize_dequantize
    want = np.mean([(quantize(x).astype(float) - y) ** 2 for x, y in tensors])
    assert found["Relu_r"] == pytest.approx(want, rel=1e-3)


def test_batch_normalizations_are_folded_in_a_copy(tmp_path: Path) -> None:
    source = text_model(NORM, 17, w=np.eye(4, dtype=np.float32), **batchnorm(4))
    before = source.SerializeToString()
    data = [{"x": np.ones((1, 4), np.float32)}]
    QuantAnalyzer(source, None, lambda s: s.run(None, data[0]), lambda s: 1.0).analyze(results_dir=tmp_path)
    assert source.SerializeToString() == before
    assert len(read(tmp_path / "per_layer_quant_enabled.json")) == 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"forward_pass_callback": None}, ConfigError, "forward_pass_callback must be a function"),
        ({"eval_callback": 0.5}, ConfigError, "eval_callback must be a function"),
        ({"forward_pass_callback": lambda session: None}, DataError, "never ran the session"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        analyzer(**changed).analyze(results_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_batches_that_are_too_few() -> None:
    with pytest.raises(ConfigError, match="num_batches is 5, but the data_loader has 4"):
        analyzer().enable_per_layer_mse_loss([feed["x"] for feed in FEEDS], 5)
