"""Large weights are given to a session apart: it says the same, and holds on to them; small models are left alone."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_text import parse_model

from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io, weights_apart

TEXT = """<ir_version: 8, opset_import: ["" : 13]>
m (float[1,256] x) => (float[1,256] y) { v = Cast<to = 1>(w) p = MatMul(x, v) y = Add(p, b) }"""
RNG = np.random.default_rng(0)
X = {"x": RNG.standard_normal((1, 256)).astype(np.float32)}


def model(kind: Any) -> Any:
    proto = parse_model(TEXT)
    weight = (RNG.standard_normal((256, 256)) * 30).astype(kind)
    arrays = {"w": weight, "b": RNG.standard_normal(256).astype(np.float32)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return io.load(proto)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int8, np.int64])
def test_a_session_says_the_same_and_outlives_its_runner(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = model(kind)
    before = io.fingerprint(found)
    (expected,) = Runner(found)(X)
    monkeypatch.setattr(weights_apart, "ABOVE", 0)
    assert list(io.runnable(found).weights) == ["w"]
    assert len(io.runnable(found).model) < 4096
    session = Runner(found).session
    assert io.fingerprint(found) == before
    del found
    gc.collect()
    np.testing.assert_array_equal(session.run(None, X)[0], expected)


def test_small_models_and_graphs_that_are_written_hold_their_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = model(np.float32)
    assert io.runnable(found).weights == {}
    monkeypatch.setattr(weights_apart, "ABOVE", 0)
    assert io.runnable(found, whole=True).weights == {}
    Runner(found, keep=tmp_path / "optimized.onnx")
    np.testing.assert_array_equal(Runner(io.load(tmp_path / "optimized.onnx"))(X)[0], Runner(found)(X)[0])
