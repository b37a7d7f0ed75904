"""What stands between layers goes with them: float where they are. Products of activations are layers themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, QuantizationConfig
from quark_onnx.optimize import Budget, LayerRow, optimize
from quark_onnx.optimize.layer_choices import followers_of, layers_of, with_choices
from quark_onnx.optimize.records import LayerOption
from quark_onnx.optimize.rungs import bottom

ATTENTION = text_model(
    """g (float[N,6,8] x) => (float[N,6,8] y) {
    [q] q = MatMul (x, wq) [k] k = MatMul (x, wk) [turn] t = Transpose <perm = [0, 2, 1]> (k)
    [scores] s = MatMul (q, t) [soft] p = Softmax (s) [mix] m = MatMul (p, x) [out] o = MatMul (m, wo)
    [sum] y = Add (x, o) }""",
    wq=normal(8, 8, seed=1),
    wk=normal(8, 8, seed=2),
    wo=normal(8, 8, seed=3),
)
RESIDUAL = text_model(
    """g (float[N,8,6,6] x) => (float[N,4] y) {
    [one] a = Conv <pads = [1, 1, 1, 1]> (x, w) [sum] b = Add (a, x) [relu] r = Relu (b)
    [two] c = Conv (r, v) [pool] p = GlobalAveragePool (c) [flat] f = Flatten (p) [end] y = MatMul (f, u) }""",
    w=normal(8, 8, 3, 3),
    v=normal(4, 8, 1, 1),
    u=normal(4, 4),
)
TABLE = text_model(
    "g (int64[N] i) => (float[N,8] y) { [words] h = Gather (t, i) [out] y = MatMul (h, w) }",
    t=normal(600, 32),
    w=normal(32, 8, seed=1),
)
LONE = text_model("g (float[N,4] x, float[N,4] z) => (float[N,4] y) { [sum] s = Add (x, z) [half] y = Sigmoid (s) }")


def feeds(model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    dims = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    draws = [{name: normal(*shape, seed=seed) for name, shape in dims.items()} for seed in range(4)]
    return [{name: np.int64(100 * abs(x)) if name == "i" else x for name, x in draw.items()} for draw in draws]


def chosen(
    model: onnx.ModelProto, target: str, choice: Callable[[str], str]
) -> tuple[QuantizationConfig, onnx.ModelProto]:
    """With choices of layers, by the name of their first node."""
    config = bottom(target, {})
    config = replace(config, per_channel=config.row.per_channel)
    done = ModelQuantizer(config).quantize_model(model, None, feeds(model))
    found = layers_of(done.evidence.model, done.plan, config.row)
    between = followers_of(done.evidence.model, done.plan, found)
    rows = [
        LayerRow(
            layer.nodes,
            layer.every[0].op_type,
            layer.elements,
            tuple(LayerOption(name, 0.0, layer.bytes(name), 0.0) for name in layer.formats),
            followers=tuple(node for node, near in between.items() if layer in near),
        )
        for layer in found
    ]
    config = with_choices(config, rows, {row.nodes[0]: choice(row.nodes[0]) for row in rows})
    return config, ModelQuantizer(config).quantize_model(model, None, feeds(model)).model


def quantizers(model: onnx.ModelProto) -> Sequence[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (ATTENTION, "cpu"),
        (ATTENTION, "qnn"),
        (RESIDUAL, "cpu"),
        (RESIDUAL, "tensorrt"),
        (RESIDUAL, "qnn"),
        (LONE, "qnn"),
    ],
)
def test_where_all_layers_are_float_all_is(model: onnx.ModelProto, target: str) -> None:
    assert quantizers(chosen(model, target, lambda node: "a8w8")[1])
    assert not quantizers(chosen(model, target, lambda node: "float")[1])


def test_one_layer_on_integers_keeps_what_it_reads() -> None:
    read = [
        {node.input[0] for node in quantizers(chosen(RESIDUAL, "cpu", choice)[1])}
        for choice in (lambda node: "a8w8", lambda node: "a8w8" if node == "two" else "w8", lambda node: "w8")
    ]
    assert not read[2] and "r" in read[1] and "p" not in read[1] and len(read[1]) < len(read[0])


def test_a_table_in_front_of_float_layers_is_stored_in_integers() -> None:
    _, model = chosen(TABLE, "cpu", lambda node: "w8")
    assert {t.data_type for t in model.graph.initializer if list(t.dims) == [600, 32]} == {onnx.TensorProto.INT8}


def test_products_of_activations_have_wide_ones_where_the_target_has() -> None:
    config, _ = chosen(ATTENTION, "qnn", lambda node: "a16w8")
    assert set(config.extra_options["LayerTypes"]) == {"q", "k", "scores", "mix", "out"}


def test_a_budget_that_attention_on_integers_does_not_meet_is_met() -> None:
    found = optimize(ATTENTION, feeds(ATTENTION), Budget(min_sqnr=70))
    assert found.met and {row.nodes[0] for row in found.rows} == {"q", "k", "scores", "mix", "out"}


def test_what_smoothing_puts_in_front_of_products_goes_with_them() -> None:
    """A Mul on integers where nothing takes the division in: no configuration can name it, as the model has none."""
    model = text_model(
        """g (float[N,8,6] x) => (float[N,6,8] y) { [conv] c = Conv (x, v) [soft] s = Sigmoid (c)
        [turn] t = Transpose <perm = [0, 2, 1]> (s) [out] y = MatMul (t, w) }""",
        v=normal(8, 8, 1) * np.array([0.02] * 7 + [9], np.float32)[:, None, None],
        w=normal(8, 8, seed=4),
    )
    samples = [{"x": x[None]} for x in normal(40, 8, 6)]
    options = {"SmoothQuant": True, "SmoothAlpha": 0.5}
    found = optimize(model, samples, Budget(min_sqnr=90.0), options=options)
    assert found.rows and not any(point.error for point in found.points)
