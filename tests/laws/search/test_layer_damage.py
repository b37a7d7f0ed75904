"""Damages of layers: a linear model has exactly those that a run with one weight rounded shows, and they add up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_models import normal, run, text_model

from quark_onnx import ModelQuantizer, Result
from quark_onnx.core.number_formats import Format
from quark_onnx.core.records import Measured
from quark_onnx.core.settings.budget import Budget
from quark_onnx.graph import io
from quark_onnx.graph.view import constant
from quark_onnx.numerics.quantizer import dequantize, qparams, quantize
from quark_onnx.optimize.layer_choices import Layer, layers_of
from quark_onnx.optimize.layer_damage import EXTREMES, damage_of, layer_damages, measure_of
from quark_onnx.optimize.rungs import bottom
from quark_onnx.stages.ranges import weight_range

PRODUCTS = text_model(
    """g (float[N,6,32] x) => (float[N,6,10] y) {
    [a] h = MatMul (x, w0) [b] i = MatMul (h, w1) [s] k = Reshape (i, to) [c] m = Gemm <transB = 1> (k, w2, b2)
    [e] y = Reshape (m, back) }""",
    w0=normal(32, 24) / 32**0.5,
    w1=normal(24, 48) / 24**0.5,
    w2=normal(10, 48) / 48**0.5,
    b2=normal(10),
    to=np.array([-1, 48]),
    back=np.array([-1, 6, 10]),
)
CONVS = text_model(
    """g (float[N,4,7,7] x) => (float[N,5,4,4] y) {
    [a] h = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) [b] i = Conv <group = 12, pads = [1, 1, 1, 1]> (h, w1)
    [c] k = ConvTranspose (i, w2, b2) [e] y = Conv <strides = [2, 2], kernel_shape = [1, 1]> (k, w3) }""",
    w0=normal(12, 4, 3, 3) / 6,
    b0=normal(12),
    w1=normal(12, 1, 3, 3) / 3,
    w2=normal(12, 8, 1, 1) / 12**0.5,
    b2=normal(8),
    w3=normal(5, 8, 1, 1) / 8**0.5,
)
MODELS = {"products": PRODUCTS, "convolutions": CONVS}


def feeds(model: onnx.ModelProto, count: int = 6) -> list[dict[str, np.ndarray]]:
    dims = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return [{"x": normal(*dims, seed=seed)} for seed in range(count)]


def looked_at(model: onnx.ModelProto) -> tuple[Result, list[Layer], list[dict[str, float]]]:
    config = replace(bottom("cpu", {}), per_channel=True)
    result = ModelQuantizer(config).quantize_model(model, None, feeds(model))
    layers = layers_of(result.evidence.model, result.plan, config.row)
    return result, layers, layer_damages(result.evidence.model, result.plan, layers, feeds(model), "noise")


def rounded(layer: Layer, format: Format) -> dict[str, np.ndarray]:
    """The weights of a layer on a grid."""
    found = {}
    for name, value in layer.weights.items():
        w = constant(value)
        assert w is not None
        q = qparams(*weight_range(w, format, EXTREMES), format)
        found[name] = dequantize(quantize(w, q, format), q, format)
    return found


def outputs(
    model: onnx.ModelProto, weights: Mapping[str, np.ndarray], layers: Sequence[Layer] = ()
) -> list[np.ndarray]:
    """Of a model with other weights; what channels of `layers` are off by in the mean goes, as by a bias."""
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in changed.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    for layer in layers:
        _corrected(model, changed, layer)
    return [run(changed, feed)[0] for feed in feeds(model)]


def _corrected(model: onnx.ModelProto, changed: onnx.ModelProto, layer: Layer) -> None:
    """A Sub behind the layer, of the mean error of each channel at it."""
    name = layer.parts[0].node.outputs[0].name or ""
    errors = [_at(changed, name, feed) - _at(model, name, feed) for feed in feeds(model)]
    axis = errors[0].ndim - 1 if layer.parts[0].node.op_type in ("MatMul", "Gemm") else 1
    rest = tuple(i for i in range(errors[0].ndim) if i != axis)
    mean = np.mean(np.concatenate(errors), rest, keepdims=True, dtype=np.float64).astype(np.float32)
    at = next(i for i, node in enumerate(changed.graph.node) if name in node.output)
    node = changed.graph.node[at]
    node.output[0] = f"{name}_raw"
    changed.graph.initializer.append(onnx.numpy_helper.from_array(mean, f"{name}_mean"))
    sub = onnx.helper.make_node("Sub", [f"{name}_raw", f"{name}_mean"], [name], name=f"{name}_sub")
    changed.graph.node.insert(at + 1, sub)


def _at(model: onnx.ModelProto, name: str, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    told = onnx.ModelProto.FromString(model.SerializeToString())
    del told.graph.output[:]
    told.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return run(told, feed)[0]


def noise(model: onnx.ModelProto, weights: Mapping[str, np.ndarray], layers: Sequence[Layer]) -> float:
    """Power of what is off, in that of the outputs."""
    pairs = list(zip(outputs(model, {}), outputs(model, weights, layers), strict=True))
    off = sum(float(np.sum((got - want).astype(np.float64) ** 2)) for want, got in pairs)
    return off / sum(float(np.sum(want.astype(np.float64) ** 2)) for want, _ in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_the_damage_of_a_layer_of_a_linear_model_is_that_of_a_run_with_it_alone_rounded(name: str) -> None:
    """To float32, of the coarsest grid: its error is 2⁻⁵ of the values that it is the difference of, which are good to
    2⁻²³ each. Finer ones go by the squares of their errors, which inputs of unlike size and direction weigh otherwise.
    """
    result, layers, damages = looked_at(MODELS[name])
    prepared = io.to_proto(result.evidence.model)
    assert len(layers) == len(prepared.graph.initializer) - sum(t.name[0] != "w" for t in prepared.graph.initializer)
    for layer, found in zip(layers, damages, strict=True):
        assert found["float"] == 0
        exact = {}
        for choice in found.keys() - {"float", "a8w8"}:
            format = layer.formats[choice]
            assert format is not None
            exact[choice] = noise(prepared, rounded(layer, format), [layer])
            assert exact[choice] / 2 < found[choice] < 2 * exact[choice]
        assert max(found.values()) == pytest.approx(max(exact.values()), rel=2e-3)
        assert found["a8w8"] > found["w8"] > 0  # what it reads is rounded as well


@pytest.mark.parametrize("name", MODELS)
def test_damages_of_a_linear_model_nearly_add_up(name: str) -> None:
    """But for products of errors of two layers: independent ones, of ten to thirty channels, so by a fifth or so."""
    result, layers, damages = looked_at(MODELS[name])
    prepared = io.to_proto(result.evidence.model)
    choices = [next(choice for choice in found if choice.startswith("w4")) for found in damages]
    weights: dict[str, np.ndarray] = {}
    for layer, choice in zip(layers, choices, strict=True):
        format = layer.formats[choice]
        assert format is not None
        weights |= rounded(layer, format)
    said = sum(found[choice] for found, choice in zip(damages, choices, strict=True))
    together = noise(prepared, weights, layers)
    assert together == pytest.approx(said, rel=1 / 3)
    assert together > 1.5 * max(d[c] for d, c in zip(damages, choices, strict=True))


def test_damages_depend_on_no_order_and_no_thread() -> None:
    result, layers, damages = looked_at(CONVS)
    model, data = result.evidence.model, feeds(CONVS)
    told: list[tuple[int, int]] = []
    again = layer_damages(model, result.plan, layers, data, "noise", None, lambda *one: told.append(one))
    assert again == damages
    assert [done for done, _ in told] == list(range(1, told[0][1] + 1))
    some = layer_damages(model, result.plan, layers[1:2], data, "noise")
    assert {choice: some[0][choice] for choice in ("w8", "w4")} == {
        choice: damages[1][choice] for choice in ("w8", "w4")
    }


def test_the_rounding_of_what_two_layers_read_is_shared_by_both() -> None:
    fork = text_model(
        "g (float[N,64] x) => (float[N,64] y) { [a] h = MatMul (x, w0) [b] i = MatMul (x, w1) [c] y = Add (h, i) }",
        w0=normal(64, 64) / 8,
        w1=normal(64, 64, seed=3) / 8,
    )
    data = [{"x": normal(8, 64, seed=seed)} for seed in range(6)]
    config = replace(bottom("cpu", {}), per_channel=True)
    result = ModelQuantizer(config).quantize_model(fork, None, data)
    layers = layers_of(result.evidence.model, result.plan, config.row)
    damages = layer_damages(result.evidence.model, result.plan, layers, data, "noise")
    shares = [found["a8w8"] - found["w8"] for found in damages]
    assert shares[0] == pytest.approx(shares[1], rel=1e-6) and shares[0] > 0
    q, format = result.plan.qparams_of("x"), result.plan.sites["x"].format
    exact = np.concatenate([run(fork, feed)[0] for feed in data])
    rough = np.concatenate([run(fork, {"x": dequantize(quantize(f["x"], q, format), q, format)})[0] for f in data])
    assert sum(shares) == pytest.approx(float(np.mean((rough - exact) ** 2) / np.mean(exact**2)), rel=2e-3)


def of(*outputs: tuple[float | None, float | None]) -> dict[str, Measured]:
    """Outputs with these divergences and dB."""
    return {f"y{i}": Measured(values=8, sqnr=db, kl=kl) for i, (kl, db) in enumerate(outputs)}


def test_classes_are_told_by_divergence_and_all_else_by_noise() -> None:
    assert measure_of(of((0.0, math.inf)), Budget()) == measure_of(of((0.0, math.inf)), Budget(max_kl=0.1)) == "kl"
    assert measure_of(of((0.0, math.inf)), Budget(max_kl=0.1, min_sqnr=20)) == "kl"
    assert measure_of(of((0.0, math.inf)), Budget(min_sqnr=20)) == "noise"  # which is what counts then
    assert measure_of(of((0.0, math.inf), (None, math.inf)), Budget()) == "noise"  # boxes beside classes
    assert measure_of(of(), Budget()) == "noise"
    whole = {"i": Measured(values=8, equal=1.0)}
    assert measure_of({**of((0.0, math.inf)), **whole}, Budget()) == "kl"  # labels beside classes
    assert measure_of(whole, Budget()) == "noise"


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(-20, 90)), min_size=1, max_size=4))
def test_the_output_that_suffers_most_counts(found: list[tuple[float, float]]) -> None:
    assert damage_of(of(*found), "kl") == max(kl for kl, _ in found)
    assert damage_of(of(*found), "noise") == max(10 ** (-db / 10) for _, db in found)


def test_what_cannot_be_measured_is_the_worst_and_what_is_exact_no_damage() -> None:
    assert damage_of(of((None, None)), "kl") == damage_of(of((None, None)), "noise") == math.inf
    assert damage_of(of((0.0, math.inf)), "noise") == damage_of(of((0.0, math.inf)), "kl") == 0
    assert damage_of({"i": Measured(values=8, equal=0.75)}, "noise") == pytest.approx(0.25)
