"""Errors of layers on small graphs, against numbers computed by hand with numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import quantized_models
from onnx_text import parse_model

from quark_onnx.core.plan import Plan
from quark_onnx.engine.activation_grid import grid
from quark_onnx.engine.compare import compare, quantized_activations, quantized_values, tensor_sqnr
from quark_onnx.engine.qdq_pieces import Piece, pieces
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model, io
from quark_onnx.graph.subgraphs import disturbable
from quark_onnx.report.layer_errors import layer_errors
from quark_onnx.report.model_report import LayerError, Layers
from quark_onnx.report.worst_layer_values import histograms, weights

Feed = dict[str, np.ndarray]

TWO = """(float[4, 8] x) => (float[4, 3] z) <float[8, 6] w, float[6, 3] v> { y = MatMul (x, w)  z = MatMul (y, v) }"""

THREE = """(float[4, 8] x) => (float[4, 5] u)
    <float[8, 6] w, float[6, 3] v, float[3, 5] t> { y = MatMul (x, w)  z = MatMul (y, v)  u = MatMul (z, t) }"""


def measured(model: Model, quantized: Model, feeds: list[Feed], **more: Any) -> Layers:
    parts = pieces(model, quantized, quantized_values(quantized))
    return layer_errors(model, quantized, parts, feeds, **({"followed": len(feeds)} | more))


def by_name(layers: Layers) -> dict[str, LayerError]:
    return {error.tensor: error for error in layers.layers}


def db(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    noise = np.square(x - y).sum()
    return float("inf") if noise == 0 else float(10 * np.log10(np.square(x).sum() / noise))


class ByHand:
    """Three products, quantized by numpy with the numbers of a plan; the last one gives floats."""

    def __init__(self, model: Model, plan: Plan, x: np.ndarray) -> None:
        arrays = quantized_models.constants(model)
        self.plan, self.x, self.w, self.v, self.t = plan, x, arrays["w"], arrays["v"], arrays["t"]
        self.y = x @ self.w
        self.z = self.y @ self.v
        self.u = self.z @ self.t

    def rounded(self, tensor: str, values: np.ndarray) -> np.ndarray:
        q, format = self.plan.qparams_of(tensor), self.plan.sites[tensor].format
        scale, zero = q.scale.astype(np.float64), q.zero_point.astype(np.int64)
        if format.axis is not None:
            shape = [-1 if axis == format.axis else 1 for axis in range(values.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        codes = np.clip(np.rint(values / scale) + zero, format.lo, format.hi)
        return (codes - zero) * scale


@pytest.mark.parametrize("per_channel", [False, True])
def test_each_figure_of_three_products_is_what_numpy_says(per_channel: bool) -> None:
    model = quantized_models.graph(THREE)
    feeds = quantized_models.feeds(model, 1)
    made = quantized_models.quantized(model, feeds, per_channel=per_channel)
    hand = ByHand(model, made.plan, feeds[0]["x"])
    found = measured(model, made.quantized, feeds)
    errors = by_name(found)
    assert list(errors) == ["x", "y", "z", "u"]
    assert (found.judged, found.feeds) == ("u", 1)

    rx, rw, rv = hand.rounded("x", hand.x), hand.rounded("w", hand.w), hand.rounded("v", hand.v)
    rt = hand.rounded("t", hand.t)
    y_alone = hand.rounded("y", hand.x @ rw)
    z_alone = hand.rounded("z", hand.y @ rv)
    y_all = hand.rounded("y", rx @ rw)
    z_all = hand.rounded("z", y_all @ rv)
    near = {"rel": 1e-3, "abs": 0.02}  # a product that lies between two codes may round either way in float32

    assert errors["x"].isolated == pytest.approx(db(hand.x, rx), **near)
    assert errors["y"].isolated == pytest.approx(db(hand.y, y_alone), **near)
    assert errors["z"].isolated == pytest.approx(db(hand.z, z_alone), **near)
    assert errors["u"].isolated == pytest.approx(db(hand.u, hand.z @ rt), **near)
    assert errors["x"].accumulated == errors["x"].isolated
    assert errors["y"].accumulated == pytest.approx(db(hand.y, y_all), **near)
    assert errors["z"].accumulated == pytest.approx(db(hand.z, z_all), **near)
    assert errors["y"].rounding == pytest.approx(db(hand.y, hand.rounded("y", hand.y)), **near)
    assert errors["y"].weight == pytest.approx(db(hand.w, rw), **near)
    assert errors["x"].weight is None and errors["u"].rounding is None

    outputs = {
        "x": rx @ hand.w @ hand.v @ hand.t,
        "y": y_alone @ hand.v @ hand.t,
        "z": z_alone @ hand.t,
        "u": hand.z @ rt,
    }
    for name, u in outputs.items():
        assert errors[name].output == pytest.approx(db(hand.u, u), **near)
    noise = {name: np.square(hand.u - u).sum() for name, u in outputs.items()}
    for name in outputs:
        assert errors[name].share == pytest.approx(noise[name] / sum(noise.values()), abs=0.005)


def qdq(bits: str, scale: float) -> Model:
    """One product, with a rounding of exactly known size behind it."""
    body = f"""(float[1, 4] x) => (float[1, 4] z)
        <float s = {{{scale}}}, {bits} o = {{0}}, float[4] one = {{1.0, 1.0, 1.0, 1.0}}> {{
        y = Mul (x, one)  q = QuantizeLinear (y, s, o)  d = DequantizeLinear (q, s, o)  z = Neg (d) }}"""
    proto = parse_model(f'<ir_version: 10, opset_import: ["": 21]> g {body}')
    return io.load(proto)


MUL = "(float[1, 4] x) => (float[1, 4] z) <float[4] one = {1.0, 1.0, 1.0, 1.0}> { y = Mul (x, one)  z = Neg (y) }"


def test_one_rounding_of_known_size() -> None:
    x = np.array([[1.3, 2.0, -3.0, 4.0]], np.float32)  # 1.3 becomes 1.5; the rest are on the grid of step 0.5
    model, quantized = quantized_models.graph(MUL), qdq("int8", 0.5)
    (error,) = measured(model, quantized, [{"x": x}]).layers
    expected = 10 * np.log10((1.3**2 + 4 + 9 + 16) / 0.2**2)
    assert (error.tensor, error.op_type) == ("y", "Mul")
    for value in (error.isolated, error.accumulated, error.rounding, error.output):
        assert value == pytest.approx(expected, abs=1e-4)
    assert error.share == 1
    assert error.by_weight == pytest.approx(0, abs=1e-6)


def test_values_on_the_grid_are_exact_and_have_no_share() -> None:
    x = np.array([[1.5, 2.0, -3.0, 4.0]], np.float32)
    (error,) = measured(quantized_models.graph(MUL), qdq("int8", 0.5), [{"x": x}]).layers
    assert error.isolated == error.accumulated == error.output == float("inf")
    assert error.share is None and error.by_weight == 0


def test_what_is_clipped_is_an_error() -> None:
    x = np.array([[100.0, 1.0, 1.0, 1.0]], np.float32)
    (error,) = measured(quantized_models.graph(MUL), qdq("int8", 0.5), [{"x": x}]).layers
    assert error.isolated == pytest.approx(10 * np.log10((1e4 + 3) / (100 - 63.5) ** 2), abs=1e-4)


def test_shares_add_up_to_one_and_the_accumulated_error_is_that_of_compare() -> None:
    model = quantized_models.graph(
        """(float[2, 3, 8, 8] x) => (float[2, 4] y)
        <float[6, 3, 3, 3] a, float[6] b, float[6, 6, 3, 3] c, float[6, 4] d> {
        e = Conv <pads = [1, 1, 1, 1]> (x, a, b)  f = Relu (e)  g = Conv <pads = [1, 1, 1, 1]> (f, c)  h = Add (f, g)
        i = GlobalAveragePool (h)  j = Flatten (i)  y = MatMul (j, d) }"""
    )
    feeds = quantized_models.feeds(model, 3)
    made = quantized_models.quantized(model, feeds)
    layers = measured(model, made.quantized, feeds)
    assert sum(error.share or 0 for error in layers.layers) == pytest.approx(1)
    expected = tensor_sqnr(model, made.quantized, feeds, quantized_values(made.quantized), optimized=False)
    found = {error.tensor: error.accumulated for error in layers.layers}
    assert {name: found[name] for name in expected if name in found} == {
        n: v for n, v in expected.items() if n in found
    }
    assert {"x", "f", "g", "h", "i", "y"} <= found.keys()
    relu = by_name(layers)["f"]
    assert (relu.node, relu.op_type) == (next(n.name for n in model.graph if n.op_type == "Conv"), "Conv")


def test_noise_that_is_followed_is_the_same_as_with_this_layer_alone_quantized() -> None:
    """The other way to measure it: a model in which nothing but the second product is quantized."""
    model = quantized_models.graph(TWO)
    feeds = quantized_models.feeds(model, 2)
    made = quantized_models.quantized(model, feeds)
    found = by_name(measured(model, made.quantized, feeds))
    sites = {name: site for name, site in made.plan.sites.items() if name in ("w", "y")}
    nodes = {name: tuple(t for t in tensors if t in sites) for name, tensors in made.plan.nodes.items()}
    alone = quantized_models.apply(model, replace(made.plan, sites=sites, nodes={n: t for n, t in nodes.items() if t}))
    expected = compare(model, alone, feeds, optimized=False).sqnr["z"]
    assert found["y"].output == pytest.approx(expected, abs=0.01)
    assert found["y"].output != pytest.approx(found["x"].output, abs=0.5)  # the twin: another layer, another figure


def test_only_so_many_layers_are_followed_and_only_so_many_feeds() -> None:
    model = quantized_models.graph(TWO)
    feeds = quantized_models.feeds(model, 3)
    made = quantized_models.quantized(model, feeds)
    done: list[int] = []
    one = measured(model, made.quantized, feeds, most=1, tick=done.append)
    assert done == [1, 2, 3]
    (followed,) = [error for error in one.layers if error.share is not None]
    assert followed.isolated == min(error.isolated for error in one.layers)
    none = measured(model, made.quantized, feeds, followed=0)
    assert all(error.output is None and error.share is None for error in none.layers)
    assert [e.isolated for e in none.layers] == [e.isolated for e in one.layers]
    assert measured(model, made.quantized, []).layers == ()


def test_a_worse_grid_makes_more_noise() -> None:
    model = quantized_models.graph(THREE)
    feeds = quantized_models.feeds(model, 2)
    fine, coarse = (
        by_name(measured(model, quantized_models.quantized(model, feeds, activation_type=kind).quantized, feeds))
        for kind in ("uint8", "uint4")
    )
    assert all(fine[name].isolated > coarse[name].isolated + 10 for name in ("x", "y", "z"))
    assert coarse["x"].node == ""  # the Clip in front of a narrow grid is none of the user's nodes


def test_movers_add_nothing() -> None:
    model = quantized_models.graph(
        "(float[4, 8] x) => (float[8, 3] z) <float[8, 8] w, float[4, 3] v> {"
        " y = MatMul (x, w)  t = Transpose <perm = [1, 0]> (y)  z = MatMul (t, v) }"
    )
    feeds = quantized_models.feeds(model, 2)
    made = quantized_models.quantized(model, feeds)
    found = by_name(measured(model, made.quantized, feeds))
    assert found["t"].isolated == float("inf") and found["t"].accumulated == found["y"].accumulated
    assert found["y"].isolated < 60


def test_weights_that_are_quantized_beside_floats_are_layers_too() -> None:
    model = quantized_models.graph(TWO)
    feeds = quantized_models.feeds(model, 2)
    made = quantized_models.quantized(model, feeds, use_dynamic_quant=True, weight_type="int8")
    found = measured(model, made.quantized, feeds)
    assert [error.tensor for error in found.layers] == ["y", "z"]
    assert all(error.rounding is None and error.by_weight == 1 for error in found.layers)


def test_pieces_end_where_the_float_model_has_the_tensor() -> None:
    made = quantized_models.quantized(quantized_models.graph(TWO))
    renamed = quantized_models.graph(TWO.replace("y = ", "other = ").replace("(y,", "(other,"))
    pairs = {name: result for name, result in quantized_values(made.quantized).items() if name != "y"}
    (_, last) = pieces(renamed, made.quantized, pairs)
    assert (last.tensor, dict(last.inputs)) == ("z", {"x_dequantized": "x"})  # both products are in it
    assert layer_errors(renamed, made.quantized, [], quantized_models.feeds(renamed)) == Layers()


def test_a_sum_of_pieces_is_the_model() -> None:
    """Fed with what the pieces before make, each piece makes what the quantized model makes."""
    model = quantized_models.graph(TWO)
    (feed,) = quantized_models.feeds(model, 1)
    made = quantized_models.quantized(model, [feed])
    parts: list[Piece] = pieces(model, made.quantized, quantized_values(made.quantized))
    values = dict(feed)
    for piece in parts:
        reads = fit({name: values[tensor] for name, tensor in piece.inputs.items()}, piece.model)
        (values[piece.tensor],) = Runner(piece.model, [piece.output], fuse=False)(reads)
    assert np.array_equal(values["z"], quantized_models.run(made.quantized, feed)[0])


# the model that noise is added to


def test_a_disturbed_tensor_changes_what_reads_it_and_nothing_else() -> None:
    model = quantized_models.graph(
        "(float[2, 2] x) => (float[2, 2] z, float[2, 2] u) { y = Relu (x)  z = Neg (y)  u = Sin (x) }"
    )
    copied, inputs = disturbable(model, ["x", "y", "missing"])
    assert sorted(inputs) == ["x", "y"]
    (feed,) = quantized_models.feeds(model, 1)
    noise = np.full((2, 2), 0.5, np.float32)
    zero = np.zeros((), np.float32)
    plain = Runner(copied, ["z", "u", "y"])(feed | {inputs["x"]: zero, inputs["y"]: zero})
    assert all(np.array_equal(a, b) for a, b in zip(plain, quantized_models.run(model, feed), strict=False))
    z, u, y = Runner(copied, ["z", "u", "y"])(feed | {inputs["x"]: zero, inputs["y"]: noise})
    assert np.array_equal(y, np.maximum(feed["x"], 0) + 0.5) and np.array_equal(z, -y) and np.array_equal(u, plain[1])
    z, u, _ = Runner(copied, ["z", "u", "y"])(feed | {inputs["x"]: noise, inputs["y"]: zero})
    assert np.allclose(u, np.sin(feed["x"] + 0.5)) and np.allclose(z, -np.maximum(feed["x"] + 0.5, 0))


def test_integers_are_not_disturbed() -> None:
    model = quantized_models.graph("(int64[2] i, float[4] t) => (float[2] y) { y = Gather (t, i) }")
    assert sorted(disturbable(model, ["i", "t", "y"])[1]) == ["t", "y"]


# grids, histograms and weights


@pytest.mark.parametrize(
    ("kind", "symmetric", "expected"),
    [
        ("uint8", False, ("uint8", 0, 255)),
        ("int16", True, ("int16", -(2**15), 2**15 - 1)),
        ("uint4", False, ("uint8", 0, 15)),
    ],
)
def test_the_grid_is_read_from_the_graph(kind: str, symmetric: bool, expected: tuple[str, int, int]) -> None:
    model = quantized_models.graph(TWO)
    made = quantized_models.quantized(model, activation_type=kind, ActivationSymmetric=symmetric)
    found = grid(quantized_activations(made.quantized)["y"])
    assert found is not None
    assert (found.dtype, found.lo, found.hi) == expected
    q = made.plan.qparams_of("y")
    assert (found.scale, found.zero_point) == (float(q.scale), int(q.zero_point))


def test_the_histogram_tells_what_is_clipped_and_what_another_range_would_gain() -> None:
    x = np.concatenate([np.linspace(-1, 1, 3999), [100.0]]).astype(np.float32).reshape(1, -1)
    model = quantized_models.graph("(float[1, 4000] x) => (float[1, 4000] z) { z = Neg (x) }")

    def of(low: float, scale: float) -> Any:
        body = f"""(float[1, 4000] x) => (float[1, 4000] z)
            <float s = {{{scale}}}, uint8 o = {{{round(-low / scale)}}}> {{
            q = QuantizeLinear (x, s, o)  d = DequantizeLinear (q, s, o)  z = Neg (d) }}"""
        quantized = io.load(parse_model(f'<ir_version: 10, opset_import: ["": 21]> g {body}'))
        parts = pieces(model, quantized, quantized_values(quantized))
        errors = measured(model, quantized, [{"x": x}]).layers
        (found,) = histograms(model, parts, errors, [{"x": x}])
        return found

    narrow, wide = of(-1.02, 2.04 / 255), of(-1.02, 101.5 / 255)
    assert (narrow.tensor, narrow.dtype, narrow.seen) == ("x", "uint8", (-1.0, 100.0))
    assert narrow.outside == pytest.approx(1 / 4000, rel=0.05) and narrow.clipping > 0.99
    assert wide.outside == 0 and wide.clipping < 0.01
    assert sum(narrow.counts) == pytest.approx(4000, abs=2) == sum(wide.counts)  # bins hold parts of values
    assert narrow.gain > 20 and wide.gain < 1  # one large value is most of the signal: the wide range is right


def test_weights_tell_how_uneven_their_channels_are() -> None:
    w = np.ones((8, 6), np.float32)
    w[:, 0] = 4
    model = quantized_models.graph(TWO.replace("float[8, 6] w, ", ""), w=w)
    feeds = quantized_models.feeds(model, 1)
    for per_channel in (False, True):
        made = quantized_models.quantized(model, feeds, per_channel=per_channel)
        parts = pieces(model, made.quantized, quantized_values(made.quantized))
        first, _ = weights(model, parts, ["y", "z"])
        assert (first.tensor, first.dtype, first.reach, first.ratio) == ("w", "int8", (1.0, 1.0, 4.0), 4.0)
        assert first.scales == (6 if per_channel else 1)
        assert first.own == (1.0 if per_channel else pytest.approx((16 + 5) / 6 / 16))
    assert weights(model, parts, ["x"]) == ()
