"""Simulations hide padding that calibration has not seen: the graph tells which tensors need room for a mask."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import normal, run, text_model

from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.masks_and_infinities import LOUD, MARGIN, range_with_mask
from quark_onnx.quantsim import QuantizationSimModel

MODEL = """g (float[2,4,8] x, int64[2,1,4] mask) => (float[2,4,8] y) {
    q = MatMul (x, w) k = Transpose <perm = [0,2,1]> (x) s = MatMul (q, k) f = Cast <to = 1> (mask) {HIDE}
    p = Softmax <axis = -1> (z) y = MatMul (p, x) }"""
HIDE = {
    "mask - 1": "i = Sub (f, unit) m = Mul (i, huge) z = Add (s, m)",
    "subtracted": "i = Sub (unit, f) m = Mul (i, huge) z = Sub (s, m)",
    "a branch": "b = Cast <to = 9> (f) z = Where (b, s, none)",
}
PADDED = np.array([[[1, 1, 1, 0]], [[1, 1, 0, 0]]])


@pytest.mark.parametrize("way", HIDE)
def test_padding_is_hidden_that_calibration_has_not_seen(way: str) -> None:
    constants = {"w": normal(8, 8) / 2, "unit": np.float32(1), "huge": np.float32(1e4), "none": np.float32(-np.inf)}
    used = {name: array for name, array in constants.items() if name == "w" or name in HIDE[way]}
    model = text_model(MODEL.replace("{HIDE}", HIDE[way]), **used)
    sim = QuantizationSimModel(model, threads=1)
    sim.compute_encodings([{"x": normal(2, 4, 8, seed=i), "mask": np.ones_like(PADDED)} for i in range(8)])
    feed = {"x": normal(2, 4, 8, seed=1), "mask": PADDED}
    want, got = run(model, feed)[0], sim.session.run(None, feed)[0]
    assert np.linalg.norm(got - want) < 0.04 * np.linalg.norm(want)


def test_a_mask_that_is_known_has_room_below_what_was_seen() -> None:
    seen, zeros = Statistics.of(np.float32([-3, 2])), Statistics.of(np.zeros(4, np.float32))
    lo, hi = range_with_mask(seen, 256, -1e9) or (0, 0)
    assert -3.1 - MARGIN < lo <= -3 - MARGIN
    assert hi == 2
    assert range_with_mask(zeros, 256, -1e9) == (-LOUD, 0)
    assert range_with_mask(zeros, 256, 1e9) == (0, LOUD)
    assert range_with_mask(seen, 256) is range_with_mask(seen, 256, 1e9) is None
