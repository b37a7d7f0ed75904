"""Decoders that get the keys and values of earlier tokens: none at the first step, and a table for both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from newer_onnxruntime import needs_version
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, Result, get_default_config

WORDS, WIDTH = 600, 32
TEXT = """g (int64[B,S] ids, float[B,2,P,16] past_k, float[B,2,P,16] past_v)
  => (float[B,S,600] logits, float[B,2,T,16] k, float[B,2,T,16] v) {
    [words] e = Gather (table, ids)
    n = LayerNormalization (e, one, zero)
    [q] a = MatMul (n, wq) a4 = Reshape (a, heads) at = Transpose <perm = [0,2,1,3]> (a4)
    [k] b = MatMul (n, wk) b4 = Reshape (b, heads) bt = Transpose <perm = [0,2,1,3]> (b4)
    [v] c = MatMul (n, wv) c4 = Reshape (c, heads) ct = Transpose <perm = [0,2,1,3]> (c4)
    k = Concat <axis = 2> (past_k, bt)
    v = Concat <axis = 2> (past_v, ct)
    kt = Transpose <perm = [0,1,3,2]> (k)
    [scores] s = MatMul (at, kt) s4 = Mul (s, root) p = Softmax <axis = -1> (s4)
    [context] o = MatMul (p, v) ot = Transpose <perm = [0,2,1,3]> (o) o3 = Reshape (ot, flat)
    [out] h = MatMul (o3, wo)
    r = Add (e, h)
    m = LayerNormalization (r, one, zero)
    LOGITS
}"""
ENDS = {
    "transposed": "tt = Transpose <perm = [1,0]> (table) [last] logits = MatMul (m, tt)",
    "gemm": "m2 = Reshape (m, two) [last] l2 = Gemm <transB = 1> (m2, table) logits = Unsqueeze (l2, first)",
    "scaled": "tw = Mul (table, half) tt = Transpose <perm = [1,0]> (tw) [last] logits = MatMul (m, tt)",
    "apart": "[last] logits = MatMul (m, other)",
}
NUMBERS: Mapping[str, np.ndarray] = {
    "table": normal(WORDS, WIDTH),
    **{name: normal(WIDTH, WIDTH, seed=seed) / 6 for seed, name in enumerate(("wq", "wk", "wv", "wo"))},
    "one": np.ones(WIDTH, np.float32),
    "zero": np.zeros(WIDTH, np.float32),
    "heads": np.array([0, 0, 2, 16]),
    "flat": np.array([0, 0, WIDTH]),
    "two": np.array([-1, WIDTH]),
    "first": np.array([0]),
    "half": np.float32([0.5]),
    "root": np.float32([0.25]),
}
WEIGHTS = {"q", "k", "v", "out", "last"}
PRESETS = ["S8S8_AAWS", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS", "S8S8_AAWS_ADAROUND"]


def step(past: int, seed: int) -> dict[str, np.ndarray]:
    """The first step has five tokens, each later one a single token."""
    ids = np.random.default_rng(seed).integers(0, WORDS, (1, 1 if past else 5))
    return {"ids": ids, "past_k": normal(1, 2, past, 16, seed=seed), "past_v": normal(1, 2, past, 16, seed=seed + 1)}


STEPS = {"first ones": [0] * 24, "all": [0, 3, 0, 6, 0, 9] * 4}


def quantize(preset: str, pasts: Sequence[int], end: str = "apart") -> Result:
    config = get_default_config(preset)
    if config.include_fast_ft:
        config = replace(config, extra_options={**config.extra_options, "FastFinetune": {"NumIterations": 20}})
    numbers = {**NUMBERS, "other": normal(WIDTH, WORDS, seed=9)} if end == "apart" else NUMBERS
    model = text_model(TEXT.replace("LOGITS", ENDS[end]), **numbers)
    return ModelQuantizer(config).quantize_model(model, None, [step(past, seed) for seed, past in enumerate(pasts)])


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("preset", ["S8S8_AAWS", "S8S8_AAWS_ADAROUND"])
def test_any_steps_calibrate(preset: str, steps: str) -> None:
    found = quantize(preset, STEPS[steps])
    rows = {row.node: row.status for row in found.report.ledger}
    assert {rows[name] for name in (*WEIGHTS, "scores", "context")} == {"integer"}
    assert min(found.report.sqnr.values()) > 25


@pytest.mark.parametrize("preset", ["INT8_PROTECTED", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS"])
def test_products_with_weights_run_on_integers(preset: str) -> None:
    found = quantize(preset, STEPS["all"])
    rows = {row.node: row.status for row in found.report.ledger}
    assert {rows[name] for name in WEIGHTS} == {"integer"}
    assert min(found.report.sqnr.values()) > (14 if preset == "MATMUL_NBITS" else 25)
    assert found.plan.sites["table"].format.bits == 8


def test_the_quantized_model_takes_any_past() -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(quantize("S8S8_AAWS", STEPS["all"]).model.SerializeToString())
    for past in (0, 1, 40):
        assert session.run(["k"], step(past, past))[0].shape[2] == past + (1 if past else 5)


ONE_COPY = [*((preset, "transposed") for preset in PRESETS), ("INT8_PROTECTED", "gemm")]


@pytest.mark.parametrize(("preset", "end"), ONE_COPY)
def test_a_table_that_is_a_weight_as_well_is_stored_once(preset: str, end: str) -> None:
    """With a scale per row, in whatever way weights of the preset have theirs; and the product runs on integers."""
    if preset == "MATMUL_NBITS":
        needs_version("1.25", "MatMulNBits of a weight that is transposed")
    found = quantize(preset, STEPS["all"], end)
    large = [w for w in found.model.graph.initializer if np.prod(w.dims) >= WORDS * WIDTH]
    assert [(list(w.dims), w.data_type) for w in large] == [([WORDS, WIDTH], onnx.TensorProto.INT8)]
    rows = {row.node: row.status for row in found.report.ledger}
    assert {rows["words"], rows["last"]} == {"integer"}
    assert min(found.report.sqnr.values()) > (18 if preset == "MATMUL_NBITS" else 25)


def test_a_weight_of_other_numbers_is_its_own() -> None:
    """Equalized with what is in front of it, for one: then it has codes and scales of its own."""
    found = quantize("MATMUL_NBITS", STEPS["all"], "apart")
    kinds = {w.name: w.data_type for w in found.model.graph.initializer if np.prod(w.dims) >= WORDS * WIDTH}
    assert kinds == {"table_quantized": onnx.TensorProto.INT8, "other_quantized": onnx.TensorProto.INT4}
    tied = quantize("MATMUL_NBITS", STEPS["all"], "scaled")
    assert {"table", "tt"} <= {w.name.removesuffix("_quantized") for w in tied.model.graph.initializer}
    assert not any(node.op_type == "Transpose" and "tt" in node.output[0] for node in tied.model.graph.node)
