"""Which choices layers have, what they take in a file, and that the pipeline makes of a choice what the table is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, QuantizationConfig, Result
from quark_onnx.optimize.layer_choices import Layer, layers_of, with_choices
from quark_onnx.optimize.records import LayerOption, LayerRow
from quark_onnx.optimize.rungs import bottom

CONVS = text_model(
    """g (float[N,8,6,6] x) => (float[N,16,6,6] y) {
    [full] h = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) [r0] hr = Relu (h)
    [depth] d = Conv <pads = [1, 1, 1, 1], group = 16> (hr, w1) [r1] dr = Relu (d)
    [back] y = ConvTranspose (dr, w2) }""",
    w0=normal(16, 8, 3, 3),
    b0=normal(16),
    w1=normal(16, 1, 3, 3),
    w2=normal(16, 16, 1, 1),
)
PRODUCTS = text_model(
    """g (float[N,64] x) => (float[N,10] y) {
    [plain] h = MatMul (x, w0) [r0] hr = Relu (h) [turned] i = Gemm <transB = 1> (hr, w1, b1) [r1] ir = Relu (i)
    [gemm] y = Gemm (ir, w2, b2) }""",
    w0=normal(64, 48),
    w1=normal(32, 48),
    b1=normal(32),
    w2=normal(32, 10),
    b2=normal(10),
)
LEFT = text_model("g (float[2,64,5] x) => (float[2,10,5] y) { [left] y = MatMul (w0, x) }", w0=normal(10, 64))
STACKED = text_model("g (float[2,5,64] x) => (float[2,5,8] y) { [stack] y = MatMul (x, w0) }", w0=normal(2, 64, 8))
SHARED = text_model(
    "g (float[N,64] x) => (float[N,64] y) { [one] h = MatMul (x, w0) [r] hr = Relu (h) [two] y = MatMul (hr, w0) }",
    w0=normal(64, 64),
)
GLOBS = text_model(
    "g (float[N,64] x) => (float[N,64] y) { [a] h = MatMul (x, w0) [r] hr = Relu (h) [b] y = MatMul (hr, w1) }",
    w0=normal(64, 64),
    w1=normal(64, 64, seed=3),
)
for node, name in zip(GLOBS.graph.node, ("l[0]/a*", "rr", "l?"), strict=True):
    node.name = name
COMPUTED = text_model(
    """g (float[N,64] x, float[64,8] v) => (float[N,8] y) {
    [scale] w = Tanh (v) [none] h = MatMul (x, w) [some] y = MatMul (h, w1) }""",
    w1=normal(8, 8),
)
TABLES = text_model(
    """g (int64[N,5] i) => (float[N,5,8] y) {
    [words] h = Gather (t, i) [other] k = Gather (u, i) [add] s = Add (h, k) [norm] n = LayerNormalization (s, g)
    [out] y = MatMul (n, w0) }""",
    g=np.ones(64, np.float32),
    t=normal(600, 64),
    u=normal(300, 64),
    w0=normal(64, 8),
)
MODELS = {
    "convolutions": CONVS,
    "products": PRODUCTS,
    "on the left": LEFT,
    "stacked": STACKED,
    "shared": SHARED,
    "globs": GLOBS,
    "tables": TABLES,
}


def feeds(model: onnx.ModelProto, count: int = 3) -> list[dict[str, np.ndarray]]:
    found = []
    for seed in range(count):
        feed = {}
        for value in model.graph.input:
            dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            whole = value.type.tensor_type.elem_type == onnx.TensorProto.INT64
            looked_up = np.random.default_rng(seed).integers(0, 300, dims)
            feed[value.name] = looked_up if whole else normal(*dims, seed=seed)
        found.append(feed)
    return found


def plain(target: str = "cpu") -> QuantizationConfig:
    config = bottom(target, {})
    return replace(config, per_channel=config.row.per_channel)


def quantized(model: onnx.ModelProto, config: QuantizationConfig) -> Result:
    return ModelQuantizer(config).quantize_model(model, None, feeds(model))


def layers(model: onnx.ModelProto, target: str = "cpu") -> list[Layer]:
    config = plain(target)
    result = quantized(model, config)
    return layers_of(result.evidence.model, result.plan, config.row)


def as_rows(found: Sequence[Layer]) -> list[LayerRow]:
    return [
        LayerRow(one.nodes, one.every[0].op_type, one.elements, tuple(LayerOption(c, 0, 0, 0) for c in one.formats))
        for one in found
    ]


def names(model: onnx.ModelProto, target: str = "cpu") -> dict[tuple[str, ...], set[str]]:
    return {one.nodes: set(one.formats) for one in layers(model, target)}


ON_CPU = {"a8w8", "w8", "w4", "float"}
BLOCKS = {"a8w8", "w8", "w4/32", "w4/128", "float"}


def test_the_choices_of_layers_on_a_cpu() -> None:
    assert names(CONVS) == {("full",): ON_CPU, ("depth",): ON_CPU, ("back",): ON_CPU}
    assert names(PRODUCTS) == {("plain",): BLOCKS, ("turned",): BLOCKS, ("gemm",): BLOCKS}
    assert names(LEFT) == {("left",): ON_CPU}  # blocks have kernels for a matrix on the right
    assert names(STACKED) == {("stack",): ON_CPU}


def test_layers_that_read_one_weight_are_decided_together() -> None:
    assert names(SHARED) == {("one", "two"): BLOCKS}
    assert names(GLOBS) == {("l[0]/a*",): BLOCKS, ("l?",): BLOCKS}  # a weight each


def test_a_product_of_activations_is_a_layer_without_weight() -> None:
    assert names(COMPUTED) == {("none",): {"a8w8", "float"}, ("some",): BLOCKS}


def test_tables_are_one_row_and_never_float() -> None:
    assert names(TABLES) == {("out",): BLOCKS, ("words", "other"): {"w8", "w4/32"}}
    odd = text_model(
        """g (int64[N,5] i) => (float[N,5,1] y) {
        [words] h = Gather (t, i) [norm] n = LayerNormalization (h, g) [out] y = MatMul (n, w0) }""",
        g=np.ones(40, np.float32),
        t=normal(600, 40),
        w0=normal(40, 1),
    )
    assert names(odd)["words",] == {"w8"}  # blocks do not divide its rows


@pytest.mark.parametrize(
    ("target", "choices"),
    [
        ("cpu-avx2", ON_CPU),
        ("qnn", {"a8w8", "a16w8", "float"}),
        ("tensorrt", {"a8w8", "float"}),
        ("vitisai", {"a8w8", "float"}),
    ],
)
def test_the_choices_of_targets(target: str, choices: set[str]) -> None:
    assert names(CONVS, target) == {("full",): choices, ("depth",): choices, ("back",): choices}


def test_layers_in_bodies_are_no_rows() -> None:
    inside = text_model(
        """g (float[N,64] x, bool c) => (float[N,64] y) {
        [front] h = MatMul (x, w0)
        [if] k = If (c) <
          then_branch = t () => (float[N,64] p) { [deep] p = MatMul (h, w1) },
          else_branch = e () => (float[N,64] q) { [flat] q = Relu (h) }>
        [out] y = MatMul (k, w2) }""",
        w0=normal(64, 64),
        w1=normal(64, 64, seed=1),
        w2=normal(64, 64, seed=2),
    )
    data = [{"x": normal(2, 64, seed=i), "c": np.array(bool(i % 2))} for i in range(4)]
    config = plain()
    result = ModelQuantizer(config).quantize_model(inside, None, data)
    assert [one.nodes for one in layers_of(result.evidence.model, result.plan, config.row)] == [("front",), ("out",)]


CASES = [(name, "cpu") for name in MODELS] + [("convolutions", "qnn"), ("products", "qnn"), ("products", "tensorrt")]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_pipeline_makes_of_every_choice_what_the_table_is_of(name: str, target: str) -> None:
    model, config = MODELS[name], plain(target)
    found = layers(model, target)
    for choice in sorted({choice for one in found for choice in one.formats} - {"float"}):
        picked = {one.nodes[0]: choice if choice in one.formats else [*one.formats][-1] for one in found}
        result = quantized(model, with_choices(config, as_rows(found), picked))
        for one in found:
            wanted = one.formats[picked[one.nodes[0]]]
            for weight in one.weights:
                site = result.plan.sites.get(weight)
                assert _plain(None if site is None else site.format) == _plain(wanted), (choice, weight)
        _check_activations(result, found, picked)


def _plain(format: Any) -> Any:
    return format and (format.bits, format.signed, format.symmetric, format.axis, format.block)


def _check_activations(result: Result, found: Sequence[Layer], picked: Mapping[str, str]) -> None:
    """What a layer reads is in so many bits as its choice says."""
    bits = {"a8w8": 8, "a16w8": 16}
    for one in found:
        choice = picked[one.nodes[0]]
        for part in one.parts:
            site = result.plan.sites.get(part.data.name or "")
            if choice in bits:
                assert site is not None and site.format.bits == bits[choice], choice


def test_one_layer_is_chosen_where_names_hold_glob_characters() -> None:
    found = layers(GLOBS)
    for choice in ("w4/32", "w8", "float"):
        for first, other in (("l[0]/a*", "l?"), ("l?", "l[0]/a*")):
            config = with_choices(plain(), as_rows(found), {first: choice, other: "a8w8"})
            plan = quantized(GLOBS, QuantizationConfig.from_json(config.to_json())).plan
            weights = {one.nodes[0]: next(iter(one.weights)) for one in found}
            site = plan.sites.get(weights[first])
            assert (None if site is None else site.format.bits) == {"w4/32": 4, "w8": 8, "float": None}[choice]
            assert plan.sites[weights[other]].format.bits == 8 and len(plan.nodes[other]) > 1


@pytest.mark.parametrize("choice", ["a8w8", "a16w8", "float"])
def test_one_layer_of_several_has_its_own_width_on_an_accelerator(choice: str) -> None:
    found = layers(CONVS, "qnn")
    picked = {"full": "a8w8", "depth": choice, "back": "a8w8"}
    plan = quantized(CONVS, with_choices(plain("qnn"), as_rows(found), picked)).plan
    assert plan.sites["x"].format.bits == 8
    assert ("w1" in plan.sites) == (choice != "float")
    assert plan.sites["hr"].format.bits == (16 if choice == "a16w8" else 8)


WIDE = text_model(
    """g (float[N,256] x) => (float[N,96] y) {
    [one] h = MatMul (x, w0) [r] hr = Relu (h) [two] y = Gemm <transB = 1> (hr, w1) }""",
    w0=normal(256, 160),
    w1=normal(96, 160),
)
WIDER = text_model(
    """g (float[N,24,5,5] x) => (float[N,40,5,5] y) {
    [one] h = Conv <pads = [1, 1, 1, 1]> (x, w0) [r] hr = Relu (h) [two] y = ConvTranspose <group = 2> (hr, w1) }""",
    w0=normal(64, 24, 3, 3),
    w1=normal(64, 20, 1, 1),
)


@pytest.mark.parametrize("model", [WIDE, WIDER], ids=["products", "convolutions"])
def test_bytes_of_a_choice_are_those_of_its_constants(model: onnx.ModelProto) -> None:
    """Codes, scales and zero points; those of symmetric weights, 0 for each channel, are shared and not counted."""
    found = layers(model)
    for choice in sorted({choice for one in found for choice in one.formats} - {"a8w8"}):
        picked = {one.nodes[0]: choice for one in found}
        done = quantized(model, with_choices(plain(), as_rows(found), picked))
        kept = {value.name: _stored(value) for value in done.model.graph.initializer if value.name != "r_zero"}
        zeros = sum(size for name, size in kept.items() if name.startswith("int8_zero_point"))
        assert sum(kept.values()) - zeros == sum(one.bytes(choice) for one in found), choice
        assert zeros == (sum(one.bytes("w8") - one.elements for one in found) / 4 if choice == "w8" else 0)


def _stored(value: onnx.TensorProto) -> int:
    """Bytes; onnx.numpy_helper gives a byte to four bits."""
    count = int(np.prod(value.dims))
    return -(-count // 2) if value.data_type == onnx.TensorProto.UINT4 else onnx.numpy_helper.to_array(value).nbytes
