"""−∞ in an input is a mask where the model's outputs stay finite; anything else that is not finite is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done, fails
from text_models import normal, text_model

from quark_onnx import DataError, ModelQuantizer, get_default_config
from quark_onnx.core.settings.fast_finetune import AdaRound
from quark_onnx.quantsim import QuantizationSimModel, apply_seq_mse, equalize_model, fine_tune, make_psnr_eval_fn

Feeds = list[dict[str, np.ndarray]]

INF = np.float32(np.inf)
ATTENTION = """g (float[1,6,16] x, float[6,6] mask) => (float[1,6,16] y{OUT}) {
    q = MatMul (x, w) k = Transpose <perm = [0,2,1]> (x) s = MatMul (q, k) {MASKED}
    p = Softmax <axis = -1> (m) y = MatMul (p, x) }"""
CAUSAL = np.triu(np.full((6, 6), -INF), 1)
LOCAL = np.where(np.abs(np.subtract.outer(np.arange(6), np.arange(6))) > 2, -INF, np.float32(0))
BIAS = np.where(CAUSAL < 0, CAUSAL, normal(6, 6))
"""A mask that is added together with a bias of positions."""
NO_ROW = CAUSAL.copy()
NO_ROW[2] = -INF

TAKEN = {
    "added": "m = Add (s, mask)",
    "scaled first": "t = Mul (mask, one) m = Add (t, s)",
    "behind a scale": "t = Mul (s, one) m = Add (t, mask)",
    "clamped behind": "t = Add (s, mask) m = Max (t, low)",
}
SPREADS = {"a factor": "m = Mul (s, mask)", "subtracted": "m = Sub (s, mask)"}


def attention(masked: str = TAKEN["added"], out: str = "") -> onnx.ModelProto:
    text = ATTENTION.replace("{MASKED}", masked).replace("{OUT}", out)
    return text_model(text, w=normal(16, 16) / 4, one=np.float32(0.5), low=np.float32(-50))


def samples(mask: np.ndarray, count: int = 6) -> Feeds:
    return [{"x": normal(1, 6, 16, seed=seed), "mask": mask} for seed in range(count)]


def quantize(model: onnx.ModelProto, data: Feeds, preset: str = "S8S8_AAWS") -> Any:
    return ModelQuantizer(get_default_config(preset)).quantize_model(model, None, data)


@pytest.mark.parametrize("masked", TAKEN)
@pytest.mark.parametrize("mask", [CAUSAL, LOCAL, BIAS], ids=["causal", "local", "with a bias"])
def test_a_mask_is_taken(masked: str, mask: np.ndarray) -> None:
    result = quantize(attention(TAKEN[masked]), samples(mask))
    assert result.report.sqnr["y"] > 20
    assert "mask" not in result.plan.sites
    assert {"MatMul_q", "MatMul_s", "MatMul_y"} <= result.plan.nodes.keys()


@pytest.mark.parametrize(
    "preset", ["INT8_PROTECTED", "XINT8", "A16W8", "FP16", "BF16", "UINT8_DYNAMIC_QUANT", "INT8_TRANSFORMER_DEFAULT"]
)
def test_every_preset_takes_it(preset: str) -> None:
    assert quantize(attention(), samples(CAUSAL), preset).report.sqnr["y"] > 20


def test_it_is_as_good_as_a_large_number() -> None:
    finite = np.maximum(CAUSAL, np.finfo(np.float32).min)
    two = [quantize(attention(), samples(mask)) for mask in (CAUSAL, finite)]
    assert two[0].plan.sites.keys() == two[1].plan.sites.keys()
    assert all(q.same(two[1].plan.qparams[group]) for group, q in two[0].plan.qparams.items())


def test_a_mask_in_some_samples() -> None:
    data = [{**feed, "mask": CAUSAL if i % 2 else np.zeros_like(CAUSAL)} for i, feed in enumerate(samples(CAUSAL))]
    assert quantize(attention(), data).report.sqnr["y"] > 20


REFUSED: dict[str, tuple[onnx.ModelProto, np.ndarray, tuple[str, ...]]] = {
    **{
        name: (attention(text), CAUSAL, ("it holds -inf", "output 'y' is not finite")) for name, text in SPREADS.items()
    },
    "a row of nothing": (attention(), NO_ROW, ("it holds -inf", "output 'y' is not finite", "Softmax")),
    "an output": (attention(out=", float[1,6,6] m"), CAUSAL, ("it holds -inf", "output 'm' is not finite")),
    "+inf": (attention(), -CAUSAL, ("15 of 36 values are NaN or infinite", "first inf at (0, 1)")),
    "NaN": (attention(), np.where(CAUSAL < 0, np.nan, CAUSAL), ("15 of 36 values", "first nan at (0, 1)")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_mask_is_refused(case: str) -> None:
    model, mask, words = REFUSED[case]
    data = [*samples(np.zeros_like(CAUSAL), 2), *samples(mask.astype(np.float32), 1)]
    with pytest.raises(DataError) as caught:
        quantize(model, data)
    for word in ("input 'mask', sample 2", "leave this sample out", *words):
        assert word in str(caught.value)


WAYS: dict[str, Callable[[QuantizationSimModel, Feeds], Any]] = {
    "compute_encodings": lambda sim, data: None,
    "fine_tune": lambda sim, data: fine_tune(sim, data, AdaRound(num_iterations=5)),
    "seq_mse": lambda sim, data: apply_seq_mse(sim, data, num_candidates=2),
    "equalize": lambda sim, data: equalize_model(attention(), data),
}


@pytest.mark.parametrize("mask", [CAUSAL, LOCAL, BIAS], ids=["causal", "local", "with a bias"])
@pytest.mark.parametrize("way", WAYS)
def test_simulations_give_it_a_range(way: str, mask: np.ndarray) -> None:
    """That of its other values and below, as masks of -3.4e38 have; the attention is not lost."""
    sim, data = QuantizationSimModel(attention(), threads=1), samples(mask)
    sim.compute_encodings(data)
    WAYS[way](sim, data)
    assert sim.quantizer("mask").enabled
    assert sim.quantizer("m").enabled
    score = make_psnr_eval_fn(attention(), data)
    assert score(sim.session) > 20


def test_a_simulation_refuses_what_is_no_mask() -> None:
    for mask in (NO_ROW, -CAUSAL):
        with pytest.raises(DataError, match="input 'mask', sample 0"):
            QuantizationSimModel(attention(), threads=1).compute_encodings(samples(mask))


def test_commands_take_it(tmp_path: Path) -> None:
    model, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    onnx.save(attention(), model)
    for name, mask in (("data", CAUSAL), ("bad", NO_ROW)):
        (tmp_path / name).mkdir()
        for i, feed in enumerate(samples(mask)):
            np.savez(tmp_path / name / f"{i}.npz", **feed)
    done("quantize", model, "-o", out, "--data", tmp_path / "data")
    done("compare", model, out, "--data", tmp_path / "data")
    assert "output 'y' is not finite" in fails(4, "compare", model, out, "--data", tmp_path / "bad")
