"""HQQ: no worse than the range from the smallest to the largest value, each scale by its own values alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_models import settings as configured
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.settings.range_methods import Ranging
from quark_onnx.numerics.quantizer import dequantize, qparams, quantize
from quark_onnx.numerics.ranges import half_quadratic as module
from quark_onnx.numerics.ranges.half_quadratic import half_quadratic
from quark_onnx.stages.ranges import weight_range

law = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**16)
FORMATS = {
    "blocks": Format(4, True, True, axis=0, block=5),
    "blocks with zero points": Format(4, False, axis=0, block=5),
    "blocks along the other axis": Format(3, True, axis=1, block=4),
    "per channel": Format(4, True, True, axis=1),
    "per channel, 8 bits": Format(8, False, axis=0),
    "per tensor": Format(4, False, True),
    "2 bits": Format(2, True, True, axis=0, block=8),
}


def heavy(seed: int, shape: tuple[int, ...] = (12, 9)) -> np.ndarray:
    """A few values are far from the others."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))).astype(np.float32)


def squares(weight: np.ndarray, format: Format, method: str) -> np.ndarray:
    q = qparams(*weight_range(weight, format, Ranging(method)), format)
    assert ((q.zero_point >= format.lo) & (q.zero_point <= format.hi)).all()
    return np.asarray(np.square(dequantize(quantize(weight, q, format), q, format) - weight))


@pytest.mark.parametrize("kind", FORMATS)
@law
@given(seed=seeds)
def test_no_scale_is_worse_than_from_the_extremes(kind: str, seed: int) -> None:
    format, weight = FORMATS[kind], heavy(seed)
    best, plain = (squares(weight, format, method) for method in ("HQQ", "MinMax"))
    if format.axis is None:
        sums = [best.sum()], [plain.sum()]
    elif format.block is None:
        sums = best.sum(1 - format.axis), plain.sum(1 - format.axis)
    else:
        starts = np.arange(0, weight.shape[format.axis], format.block)
        sums = tuple(np.add.reduceat(side, starts, format.axis) for side in (best, plain))
    assert np.all(np.asarray(sums[0]) <= np.asarray(sums[1]) * 1.001 + 1e-9)


@pytest.mark.parametrize(("kind", "gain"), [("per channel", 0.85), ("per tensor", 0.65), ("2 bits", 0.6)])
def test_it_gains(kind: str, gain: float) -> None:
    """Of bell-shaped values, whose ends are worth clipping."""
    weight = normal(120, 40)
    assert squares(weight, FORMATS[kind], "HQQ").sum() < gain * squares(weight, FORMATS[kind], "MinMax").sum()


@law
@given(seeds)
def test_a_block_depends_on_its_values_alone(seed: int) -> None:
    weight, format = heavy(seed), FORMATS["blocks with zero points"]
    lo, hi = half_quadratic(weight, format)
    for row, start in enumerate((0, 5, 10)):
        alone = half_quadratic(weight[start : start + 5], format)
        np.testing.assert_array_equal(alone, (lo[row : row + 1], hi[row : row + 1]))
    turned = half_quadratic(np.ascontiguousarray(weight.T), Format(4, False, axis=1, block=5))
    np.testing.assert_array_equal(turned, (lo.T, hi.T))


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = heavy(1)
    whole = half_quadratic(weight, FORMATS["blocks"])
    monkeypatch.setattr(module, "PART", 30)
    np.testing.assert_array_equal(half_quadratic(weight, FORMATS["blocks"]), whole)


@pytest.mark.parametrize("kind", FORMATS)
def test_zeros_are_exact(kind: str) -> None:
    weight = heavy(2)
    weight[:5] = 0
    assert squares(weight, FORMATS[kind], "HQQ")[:5].max() == 0
    assert squares(np.zeros_like(weight), FORMATS[kind], "HQQ").max() == 0


def test_the_preset_needs_no_data_and_beats_the_plain_one() -> None:
    text = "g (float[N,40] x) => (float[N,12] y) { [n] y = MatMul (x, w) }"
    model, weight = text_model(text, 21, w=normal(40, 12)), normal(40, 12)
    errors = {}
    for name in ("MATMUL_NBITS", "MATMUL_NBITS_HQQ"):
        plan = ModelQuantizer(get_default_config(name)).quantize_model(model).plan
        (tensor,) = plan.sites
        q, format = plan.qparams_of(tensor), plan.sites[tensor].format
        errors[name] = float(np.square(dequantize(quantize(weight, q, format), q, format) - weight).sum())
    assert errors["MATMUL_NBITS_HQQ"] < 0.9 * errors["MATMUL_NBITS"]


def test_it_is_for_weights_alone() -> None:
    assert configured(WeightCalibrateMethod="HQQ").searches_scales is False
    with pytest.raises(ConfigError, match=r"HQQ.*WeightCalibrateMethod"):
        configured(calibrate_method="HQQ")
    with pytest.raises(ConfigError, match="HQQ"):
        configured(TensorQuantOverrides={"x": [{"calibrate_method": "HQQ"}]})
