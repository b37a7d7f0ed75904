"""Equalization: which layers it joins, that outputs stay what they were, that ranges become even, and every no."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from quantized_models import Feed, constants, feeds, graph, run

from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.graph import Model, io
from quark_onnx.stages.equalize import Equalized, equalize, rescale, tensors_needed

IMAGE = "(float[1,3,8,8] x) => (float[A,B,C,D] y)"
ROW = "(float[1,3,8,8] x) => (float[A,B] y)"
W1 = "float[4,3,3,3] w1, float[4] b1"
FIRST = "[c1] h = Conv (x, w1, b1)"
UNEVEN = np.array([0.01, 0.3, 1.0, 40.0], np.float32)


class Done(NamedTuple):
    """A model, what was decided, and the model made from it."""

    model: Model
    result: Equalized
    scaled: Model

    @property
    def applied(self) -> set[str]:
        return {outcome.node for outcome in self.result.log if outcome.rule == "equalize" and outcome.reason is None}

    def reason(self, node: str, rule: str = "equalize") -> str:
        (found,) = [o.reason for o in self.result.log if (o.rule, o.node) == (rule, node)]
        return found or ""


def extremes(model: Model, data: list[Feed], tensors: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return channel_extremes(model, data, tensors, lambda done: None)


def equalized(text: str, *, opset: int = 17, absorb: bool = False, **arrays: Any) -> Done:
    """Equalize on four samples; on them the outputs must be what they were, and the model itself untouched."""
    model = graph(text, opset, **arrays)
    before = io.to_proto(model).SerializeToString(deterministic=True)
    data = feeds(model)
    result = equalize(model, extremes(model, data, tensors_needed(model, absorb=absorb)), absorb=absorb)
    scaled = rescale(model, result.factors, result.shifts)
    io.check(scaled)
    assert io.to_proto(model).SerializeToString(deterministic=True) == before
    assert io.fingerprint(rescale(model, result.factors, result.shifts)) == io.fingerprint(scaled)
    for feed in data:
        assert_same(model, scaled, feed)
    return Done(model, result, scaled)


def assert_same(model: Model, scaled: Model, feed: Feed) -> None:
    """Outputs agree up to the rounding of all products that one of them depends on.

    Each weight is rounded once more, each sum of n products is off by n·eps·Σ|products|, which for these normal
    numbers stays below 4 max|y|, and both models round: 8·n·eps·max|y|, n the products in all layers.
    """
    terms = sum(int(np.prod(w.shape[1:])) for w in constants(model).values() if w.ndim > 1)
    for want, got in zip(run(model, feed), run(scaled, feed), strict=True):
        assert np.isfinite(want).all()
        bound = 8 * terms * np.finfo(np.float32).eps * np.abs(want).max(initial=1e-30)
        np.testing.assert_allclose(got, want, rtol=0, atol=bound)


def spread(weight: np.ndarray, axis: int) -> float:
    """Largest over smallest absmax along the axis of channels."""
    sizes = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    return float(sizes.max() / sizes.min())


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


PAIRS: dict[str, tuple[str, set[str]]] = {
    "Relu": (f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ {FIRST} a = Relu (h) [c2] y = Conv (a, w2) }}", {"c1"}),
    "nothing": (f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ {FIRST} [c2] y = Conv (h, w2) }}", {"c1"}),
    "LeakyRelu": (f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ {FIRST} a = LeakyRelu (h) [c2] y = Conv (a, w2) }}", {"c1"}),
    "PRelu": (
        f"{IMAGE} <{W1}, float[4,1,1] s, float[5,4,3,3] w2> {{ {FIRST} a = PRelu (h, s) [c2] y = Conv (a, w2) }}",
        {"c1"},
    ),
    "MaxPool": (
        f"{IMAGE} <{W1}, float[5,4,1,1] w2> {{ {FIRST} a = Relu (h)"
        " p = MaxPool <kernel_shape=[2,2], pads=[1,1,0,0]> (a) [c2] y = Conv (p, w2) }",
        {"c1"},
    ),
    "AveragePool": (
        f"{IMAGE} <{W1}, float[5,4,1,1] w2> {{ {FIRST} a = Relu (h)"
        " p = AveragePool <kernel_shape=[2,2], pads=[1,1,0,0]> (a) [c2] y = Conv (p, w2) }",
        {"c1"},
    ),
    "Pad": (
        f"{IMAGE} <{W1}, int64[8] p, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Relu (h) q = Pad (a, p) [c2] y = Conv (q, w2) }}",
        {"c1"},
    ),
    "without bias": (f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ [c1] h = Conv (x, w1) [c2] y = Conv (h, w2) }}", {"c1"}),
    "two layers read": (
        f"{IMAGE} <{W1}, float[5,4,3,3] w2, float[5,4,3,3] w3>"
        f" {{ {FIRST} a = Relu (h) [c2] i = Conv (a, w2) [c3] j = Conv (a, w3) y = Mul (i, j) }}",
        {"c1"},
    ),
    "a shape is read": (
        f"(float[1,3,8,8] x) => (float[A,B,C,D] y, int64[4] s) <{W1}, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Relu (h) s = Shape (a) [c2] y = Conv (a, w2) }}",
        {"c1"},
    ),
    "depthwise chain": (
        f"{IMAGE} <{W1}, float[4,1,3,3] w2, float[4] b2, float[5,4,1,1] w3> {{ {FIRST} a = Relu (h)"
        " [dw] d = Conv <group=4, pads=[1,1,1,1]> (a, w2, b2) e = Relu (d) [c3] y = Conv (e, w3) }",
        {"c1", "dw"},
    ),
    "channel multiplier": (
        f"{IMAGE} <{W1}, float[8,1,3,3] w2, float[8] b2, float[5,8,1,1] w3> {{ {FIRST} a = Relu (h)"
        " [dw] d = Conv <group=4> (a, w2, b2) e = Relu (d) [c3] y = Conv (e, w3) }",
        {"c1", "dw"},
    ),
    "groups": (
        f"{IMAGE} <{W1}, float[6,2,3,3] w2, float[6] b2, float[5,6,1,1] w3> {{ {FIRST} a = Relu (h)"
        " [g] d = Conv <group=2> (a, w2, b2) e = Relu (d) [c3] y = Conv (e, w3) }",
        {"c1", "g"},
    ),
    "ConvTranspose": (
        f"{IMAGE} <{W1}, float[4,3,3,3] w2, float[6] b2, float[5,6,1,1] w3> {{ {FIRST} a = Relu (h)"
        " [t] d = ConvTranspose <group=2, strides=[2,2]> (a, w2, b2) e = Relu (d) [c3] y = Conv (e, w3) }",
        {"c1", "t"},
    ),
    "Gemm behind GlobalAveragePool": (
        f"{ROW} <{W1}, float[4,5] w2, float[5] b2, float[6,5] w3> {{ {FIRST} a = Relu (h) g = GlobalAveragePool (a)"
        " f = Flatten (g) [g1] i = Gemm (f, w2, b2) j = Relu (i) [g2] y = Gemm <transB=1> (j, w3) }",
        {"c1", "g1"},
    ),
    "Gemm behind all positions": (
        f"{ROW} <{W1}, float[144,5] w2> {{ {FIRST} a = Relu (h) f = Flatten (a) [g1] y = Gemm (f, w2) }}",
        {"c1"},
    ),
    "mean over positions": (
        f"{ROW} <{W1}, float[4,5] w2> {{ {FIRST} a = Relu (h) m = ReduceMean <axes=[-1,2], keepdims=0> (a)"
        " [mm] y = MatMul (m, w2) }",
        {"c1"},
    ),
    "a width that only the reader knows": (
        f"(float[N,3,8,8] x) => (float[A,B] y) <{W1}, int64 z, int64[1] i, int64[1] m, float[144,5] w2>"
        f" {{ {FIRST} a = Relu (h) s = Shape (a) n = Gather (s, z) u = Unsqueeze (n, i) t = Concat <axis=0> (u, m)"
        " f = Reshape (a, t) [g1] y = Gemm (f, w2) }",
        {"c1"},
    ),
    "residual": (
        f"{IMAGE} <{W1}, float[4,4,3,3] w2, float[4] b2, float[4,4,3,3] w3, float[4] b3, float[5,4,1,1] w4>"
        f" {{ {FIRST} a = Relu (h) [c2] i = Conv <pads=[1,1,1,1]> (a, w2, b2) j = Relu (i)"
        " [c3] k = Conv <pads=[1,1,1,1]> (j, w3, b3) s = Add (k, a) r = Relu (s) [c4] y = Conv (r, w4) }",
        {"c1", "c2", "c3"},
    ),
    "a layer across its own sum": (
        f"{IMAGE} <{W1}, float[4,4,3,3] w2, float[4] b2, float[5,4,1,1] w3>"
        f" {{ {FIRST} a = Relu (h) [c2] i = Conv <pads=[1,1,1,1]> (a, w2, b2) s = Add (i, a) [c3] y = Conv (s, w3) }}",
        {"c1", "c2"},
    ),
}
GIVEN = {
    "Pad": {"p": np.array([0, 0, 1, 1, 0, 0, 2, 0])},
    "a width that only the reader knows": {"z": np.int64(0), "i": np.array([0]), "m": np.array([-1])},
}


@pytest.mark.parametrize("name", PAIRS)
def test_layers_are_joined_and_outputs_stay(name: str) -> None:
    text, expected = PAIRS[name]
    w1 = noise(4, 3, 3, 3) * UNEVEN.reshape(-1, 1, 1, 1)
    done = equalized(text, w1=w1, **GIVEN.get(name, {}))
    assert done.applied == expected
    before, after = constants(done.model)["w1"], constants(done.scaled)["w1"]
    assert spread(after, 0) < spread(before, 0) / (1.5 if "c3" in expected or "sum" in name else 5)


def test_opposite_ranges_meet() -> None:
    """Rows that are k times too large with columns k times too small come out even: nothing else is uneven here."""
    k = UNEVEN.reshape(-1, 1, 1, 1)
    w1, w2 = noise(4, 3, 3, 3) * k, noise(5, 4, 3, 3) / k.reshape(1, -1, 1, 1)
    even = max(spread(noise(4, 3, 3, 3), 0), spread(noise(5, 4, 3, 3), 1))
    done = equalized(PAIRS["Relu"][0], w1=w1, w2=w2)
    found = constants(done.scaled)
    assert spread(w1, 0) > 1000
    assert spread(found["w1"], 0) <= even * 1.01
    # √(r1 r2) in both: the rows of one and the columns of the other are of one size
    rows, columns = np.abs(found["w1"]).max((1, 2, 3)), np.abs(found["w2"]).max((0, 2, 3))
    np.testing.assert_allclose(rows, columns, rtol=1e-2)


def test_a_residual_group_has_one_factor() -> None:
    done = equalized(PAIRS["residual"][0])
    rows = [done.result.factors[name] for name in ("b1", "b3")]
    np.testing.assert_array_equal(*rows)
    np.testing.assert_allclose(done.result.factors["w4"].reshape(-1) * rows[0], 1)
    assert done.result.factors["w2"].shape == (4, 4, 1, 1)


def test_a_channel_that_nobody_reads_shrinks() -> None:
    """It may hold the largest weights of its layer, and would rule the scale of all others."""
    w1, w2 = noise(4, 3, 3, 3), noise(5, 4, 3, 3)
    w1[2] *= 100
    w2[:, 2] = 0
    done = equalized(PAIRS["Relu"][0], w1=w1, w2=w2)
    sizes = np.abs(constants(done.scaled)["w1"]).max((1, 2, 3))
    assert sizes[2] < sizes.min(initial=np.inf, where=np.arange(4) != 2)


def test_a_constant_channel_stays() -> None:
    w1 = noise(4, 3, 3, 3)
    w1[1] = 0
    done = equalized(PAIRS["Relu"][0], w1=w1)
    assert done.result.factors["b1"][1] == 1
    assert (done.result.factors["b1"] != 1).sum() == 3


CLIP = f"{IMAGE} <{W1}, float low, float high, float[5,4,3,3] w2>" + (
    f" {{ {FIRST} a = Clip (h, low, high) [c2] y = Conv (a, w2) }}"
)


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-6.0, 6.0), (-np.inf, 6.0), (-6.0, np.inf)])
def test_a_clip_is_never_felt(low: float, high: float) -> None:
    """Channels 0 and 1 reach it and stay as they are; the others grow, but not up to it."""
    w1 = noise(4, 3, 3, 3) * np.array([3, 2, 0.01, 0.2], np.float32).reshape(-1, 1, 1, 1)
    done = equalized(
        CLIP, w1=w1, b1=np.zeros(4, np.float32), low=np.float32(low), high=np.float32(high), w2=50 * noise(5, 4, 3, 3)
    )
    assert tensors_needed(done.model) == ["h"]
    factor = done.result.factors["b1"]
    assert (factor[:2] == 1).all()
    assert (factor[2:] > 1).all()
    lowest, highest = extremes(done.scaled, feeds(done.model), ["h"])["h"]
    assert (highest[2:] <= 0.98 * high * (1 + 1e-5)).all()
    assert low == 0 or (lowest[2:] >= 0.98 * low * (1 + 1e-5)).all()
    reached = max(highest[2:].max() / high, 0 if low == 0 else lowest[2:].min() / low)
    assert reached == pytest.approx(0.98, rel=1e-4)  # the data would allow more: the bound is used up


def test_a_clip_inside_a_residual_branch_bounds_the_group() -> None:
    text = f"{IMAGE} <{W1}, float[4,3,3,3] w2, float[4] b2, float low, float high, float[5,4,3,3] w3>" + (
        f" {{ {FIRST} [c2] i = Conv (x, w2, b2) j = Clip (i, low, high) s = Add (h, j) [c3] y = Conv (s, w3) }}"
    )
    done = equalized(text, low=np.float32(0), high=np.float32(6))
    assert tensors_needed(done.model) == ["i"]
    assert done.applied == {"c1", "c2"}
    reached = extremes(done.model, feeds(done.model), ["i"])["i"][1] >= 6
    assert reached.any()
    assert (done.result.factors["b1"][reached] == 1).all()


def test_a_clip_of_an_old_operator_set_is_not_understood() -> None:
    text = f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ {FIRST} a = Clip <min=0.0, max=6.0> (h) [c2] y = Conv (a, w2) }}"
    assert "not constant" in equalized(text, opset=10).reason("c1")


def test_a_pad_of_some_axes_is_not_understood() -> None:
    text = f"{IMAGE} <{W1}, int64[2] p, int64[1] axes, float[5,5,3,3] w2>" + (
        f" {{ {FIRST} a = Pad (h, p, , axes) [c2] y = Conv (a, w2) }}"
    )
    done = equalized(text, opset=18, p=np.array([1, 0]), axes=np.array([1]))
    assert "not given for all axes" in done.reason("c1")


def test_without_a_bound_a_clip_is_a_relu() -> None:
    w1 = noise(4, 3, 3, 3) * UNEVEN.reshape(-1, 1, 1, 1)
    clip = equalized(CLIP, w1=w1, low=np.float32(0), high=np.float32(np.inf))
    relu = equalized(PAIRS["Relu"][0], w1=w1)
    np.testing.assert_array_equal(clip.result.factors["b1"], relu.result.factors["b1"])


def test_a_clip_behind_flattened_positions() -> None:
    text = f"{ROW} <{W1}, float low, float high, float[144,5] w2>" + (
        f" {{ {FIRST} f = Flatten (h) a = Clip (f, low, high) [g1] y = Gemm (a, w2) }}"
    )
    w1 = noise(4, 3, 3, 3) * np.array([3, 2, 0.01, 0.2], np.float32).reshape(-1, 1, 1, 1)
    done = equalized(text, w1=w1, b1=np.zeros(4, np.float32), low=np.float32(0), high=np.float32(6))
    assert done.applied == {"c1"}
    assert (done.result.factors["b1"][:2] == 1).all()


def test_a_clip_that_was_not_observed() -> None:
    model = graph(CLIP, low=np.float32(0), high=np.float32(6))
    result = equalize(model, {})
    assert not result.factors
    assert "not known" in (result.log[0].reason or "")
    broken = {"h": (np.zeros(4), np.array([1, np.nan, 1, 1]))}
    assert "NaN" in (equalize(model, broken).log[0].reason or "")


def test_an_infinite_weight() -> None:
    model = graph(PAIRS["Relu"][0], w2=np.full((5, 4, 3, 3), np.inf, np.float32))
    assert "infinite" in (equalize(model, {}).log[0].reason or "")


REFUSED: dict[str, tuple[str, str]] = {
    "shared weight": (
        f"{IMAGE} <float[3,3,3,3] w1, float[3] b1> {{ [c1] h = Conv (x, w1, b1) a = Relu (h) [c2] y = Conv (a, w1) }}",
        "shared",
    ),
    "weight shown to the caller": (
        f"(float[1,3,8,8] x) => (float[A,B,C,D] y, float[5,4,3,3] w2) <{W1}, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Relu (h) [c2] y = Conv (a, w2) }}",
        "shared",
    ),
    "consumer shared with another reader": (
        f"(float[1,3,8,8] x) => (float[A,B,C,D] y, float[E,F,G,H] z) <{W1}, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Relu (h) [c2] y = Conv (a, w2) z = Relu (w2) }}",
        "shared",
    ),
    "shared bias": (
        f"{IMAGE} <{W1}, float[4,4,3,3] w2> {{ [c1] h = Conv (x, w1, b1) a = Relu (h) [c2] y = Conv (a, w2, b1) }}",
        "bias is shared",
    ),
    "graph output": (
        f"(float[1,3,8,8] x) => (float[A,B,C,D] y, float[1,4,6,6] a) <{W1}, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Relu (h) [c2] y = Conv (a, w2) }}",
        "'a' is a model output",
    ),
    "Sigmoid": (
        f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ {FIRST} a = Sigmoid (h) [c2] y = Conv (a, w2) }}",
        "Sigmoid",
    ),
    "a reader that is no layer": (
        f"(float[1,3,8,8] x) => (float[A,B,C,D] y, float[1,4,6,6] z) <{W1}, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Relu (h) [c2] y = Conv (a, w2) [t] z = Tanh (a) }}",
        "Tanh 't'",
    ),
    "a weight that is computed": (
        f"(float[1,3,8,8] x, float[5,4,3,3] w2) => (float[A,B,C,D] y) <{W1}>"
        f" {{ {FIRST} a = Relu (h) [c2] y = Conv (a, w2) }}",
        "not a constant",
    ),
    "an Add of a constant": (
        f"{IMAGE} <{W1}, float[1,4,1,1] k, float[5,4,3,3] w2> {{ {FIRST} a = Add (h, k) [c2] y = Conv (a, w2) }}",
        "summand",
    ),
    "an Add of the input": (
        f"{IMAGE} <float[3,3,3,3] w1, float[3] b1, float[5,3,3,3] w2>"
        " { [c1] h = Conv <pads=[1,1,1,1]> (x, w1, b1) a = Add (h, x) [c2] y = Conv (a, w2) }",
        "summand",
    ),
    "an Add that widens": (
        f"{IMAGE} <float[1,3,8,8] w1, float[1] b1, float[4,3,3,3] w2, float[5,4,3,3] w3>"
        " { [c1] h = Conv (x, w1, b1) [c2] g = Conv (x, w2) a = Add (g, h) [c3] y = Conv (a, w3) }",
        "summand",
    ),
    "an Add along the last axis": (
        f"(float[1,3,8,6] x) => (float[A,B,C,D] y) <{W1}, float[4,4] w2, float[5,4,1,1] w3>"
        f" {{ {FIRST} g = GlobalAveragePool (h) f = Flatten (g) [g1] r = Gemm (f, w2) a = Add (h, r)"
        " [c3] y = Conv (a, w3) }",
        "summand",
    ),
    "Gemm of columns": (
        "(float[2,3] x) => (float[A,B] y) <float[3,4] w1, float[2,5] w2>"
        " { [c1] h = Gemm (x, w1) [g2] y = Gemm <transA=1> (h, w2) }",
        "no axis of channels",
    ),
    "a residual group with one bad member": (
        f"{IMAGE} <{W1}, float[4,4,3,3] w2, float[5,4,1,1] w3> {{ {FIRST} a = Sigmoid (h)"
        " [c2] i = Conv <pads=[1,1,1,1]> (a, w2) s = Add (i, h) [c3] y = Conv (s, w3) }",
        "Sigmoid",
    ),
    "Transpose": (
        f"{IMAGE} <{W1}, float[5,6,3,3] w2> {{ {FIRST} a = Transpose <perm=[0,2,1,3]> (h) [c2] y = Conv (a, w2) }}",
        "Transpose",
    ),
    "Reshape across channels": (
        f"{IMAGE} <{W1}, int64[4] s, float[5,2,3,3] w2> {{ {FIRST} a = Reshape (h, s) [c2] y = Conv (a, w2) }}",
        "other axes",
    ),
    "Flatten into rows": (
        f"{ROW} <{W1}, float[36,5] w2> {{ {FIRST} a = Flatten <axis=2> (h) [g] y = Gemm (a, w2) }}",
        "other axes",
    ),
    "ReduceMean over channels": (
        f"{IMAGE} <{W1}, float[5,1,3,3] w2> {{ {FIRST} a = ReduceMean <axes=[1]> (h) [c2] y = Conv (a, w2) }}",
        "reduces channels",
    ),
    "Pad with ones": (
        f"{IMAGE} <{W1}, int64[8] p, float one, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Pad (h, p, one) [c2] y = Conv (a, w2) }}",
        "another value",
    ),
    "Pad of channels": (
        f"{IMAGE} <{W1}, int64[8] c, float[5,5,3,3] w2> {{ {FIRST} a = Pad (h, c) [c2] y = Conv (a, w2) }}",
        "pads the channels",
    ),
    "Clip from one": (
        f"{IMAGE} <{W1}, float one, float[5,4,3,3] w2> {{ {FIRST} a = Clip (h, one) [c2] y = Conv (a, w2) }}",
        "outside",
    ),
    "slopes that are computed": (
        f"(float[1,3,8,8] x, float[4,1,1] s) => (float[A,B,C,D] y) <{W1}, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = PRelu (h, s) [c2] y = Conv (a, w2) }}",
        "slopes",
    ),
    "half precision": (
        "(float16[1,3,8,8] x) => (float16[A,B,C,D] y) <float16[4,3,3,3] w1, float16[5,4,3,3] w2>"
        " { [c1] h = Conv (x, w1) [c2] y = Conv (h, w2) }",
        "float16",
    ),
    "a control-flow body": (
        f"(float[1,3,8,8] x, bool q) => (float[A,B,C,D] y, float[1,4,6,6] z) <{W1}, float[5,4,3,3] w2>"
        f" {{ {FIRST} a = Relu (h) [c2] y = Conv (a, w2)"
        " z = If (q) <then_branch = t () => (float[1,4,6,6] u) { u = Relu (a) },"
        " else_branch = e () => (float[1,4,6,6] v) { v = Abs (a) }> }",
        "control-flow",
    ),
    "nobody": (f"{IMAGE} <{W1}> {{ {FIRST} y = Relu (h) }}", "model output"),
}
NUMBERS = {
    "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "c": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
    "s": np.array([1, 2, 12, 6]),
    "one": np.float32(1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stays_as_it_is(name: str) -> None:
    text, reason = REFUSED[name]
    declared = {key: array for key, array in NUMBERS.items() if f" {key}," in text or f" {key}>" in text}
    declared.pop("s" if "PRelu" in text else "", None)
    done = equalized(text, **declared)
    assert not done.applied
    assert not done.result.factors
    assert reason in done.reason("c1")


def test_the_rest_of_the_model_is_equalized_all_the_same() -> None:
    text = (
        f"{IMAGE} <{W1}, float[4,4,3,3] w2, float[4] b2, float[5,4,1,1] w3> {{ {FIRST} a = Sigmoid (h)"
        " [c2] i = Conv (a, w2, b2) j = Relu (i) [c3] y = Conv (j, w3) }"
    )
    done = equalized(text)
    assert done.applied == {"c2"}
    assert set(done.result.factors) == {"w2", "b2", "w3"}
    assert done.result.factors["w2"].shape == (4, 1, 1, 1)


HIGH = f"{IMAGE} <{W1}, float[5,4,3,3] w2, float[5] b2> {{ {FIRST} a = ACT [c2] y = Conv CONV (a, w2, b2) }}"


def high(act: str = "Relu (h)", conv: str = "", **arrays: Any) -> Done:
    """Channels 0 and 2 stay far above 0: |Σ of 27 normal products| does not reach 35."""
    b1 = np.array([35, -1, 70, 0], np.float32)
    text = HIGH.replace("ACT", act).replace("CONV", conv)
    return equalized(text, absorb=True, b1=b1, **arrays)


@pytest.mark.parametrize("act", ["Relu (h)", "LeakyRelu (h)", "Identity (h)", "MaxPool <kernel_shape=[2,2]> (h)"])
def test_high_biases_are_absorbed(act: str) -> None:
    done = high(act)
    assert done.reason("c1", "absorb") == ""
    assert set(done.result.shifts) == {"b1", "b2"}
    shift = done.result.shifts["b1"]
    assert (shift[[0, 2]] < 0).all()
    assert (shift[[1, 3]] == 0).all()
    before = extremes(rescale(done.model, done.result.factors, {}), feeds(done.model), ["h"])["h"]
    after = extremes(done.scaled, feeds(done.model), ["h"])["h"]
    np.testing.assert_allclose(after[0][[0, 2]], 0, atol=1e-4 * before[1].max())
    assert (after[1][[0, 2]] < before[1][[0, 2]] * 0.8).all()


def test_absorbing_at_the_end_of_a_chain() -> None:
    """Through Flatten; the middle layer gives to the next and takes from the one before."""
    text = (
        (
            f"{ROW} <{W1}, float[6,1,3,3] w2, float[6] b2, float[96,5] w3, float[5] b3> {{ {FIRST} a = Relu (h)"
            " [g] d = Conv <group=4> (a, w2, b2) e = Relu (d) f = Flatten (e) [g1] y = Gemm (f, w3, b3) }"
        )
        .replace("float[6,1,3,3] w2, float[6] b2", "float[8,1,3,3] w2, float[8] b2")
        .replace("float[96,5]", "float[128,5]")
    )
    done = equalized(text, absorb=True, b1=np.full(4, 40.0, np.float32), b2=np.full(8, 900.0, np.float32))
    assert set(done.result.shifts) == {"b1", "b2", "b3"}


@pytest.mark.parametrize(
    ("act", "conv", "reason"),
    [
        ("Relu (h)", "<pads=[1,1,1,1]>", "zeros"),
        ("Relu (h)", "<auto_pad='SAME_UPPER'>", "zeros"),
        ("Pad (h, p)", "", "zeros"),
        ("AveragePool <kernel_shape=[2,2], pads=[1,1,0,0], count_include_pad=1> (h)", "", "zeros"),
        ("Add (h, h)", "", "summands"),
    ],
)
def test_biases_that_stay(act: str, conv: str, reason: str) -> None:
    done = high(act, conv.replace("'", '"'), **({"p": NUMBERS["p"]} if "Pad" in act else {}))
    assert reason in done.reason("c1", "absorb")
    assert done.applied == {"c1"}
    assert not done.result.shifts


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("[c2] y = Gemm <alpha=0.5> (f, w2, b2)", "alpha"),
        ("[c2] y = Gemm (f, w2)", "no bias of its own"),
    ],
)
def test_a_gemm_that_takes_no_bias(layer: str, reason: str) -> None:
    text = f"{ROW} <{W1}, float[144,5] w2, float[5] b2> {{ {FIRST} a = Relu (h) f = Flatten (a) {layer} }}"
    done = equalized(text, absorb=True, b1=np.full(4, 40, np.float32))
    assert reason in done.reason("c1", "absorb")


def test_a_transposed_convolution_takes_no_bias() -> None:
    text = f"{IMAGE} <{W1}, float[4,5,3,3] w2, float[5] b2> {{ {FIRST} [t] y = ConvTranspose (h, w2, b2) }}"
    done = equalized(text, absorb=True, b1=np.full(4, 40, np.float32))
    assert "borders" in done.reason("c1", "absorb")


def test_a_channel_that_reaches_the_clip_keeps_its_bias() -> None:
    done = high("Clip (h, low, high)", low=np.float32(0), high=np.float32(70))
    shift = done.result.shifts["b1"]
    assert shift[0] < 0
    assert (shift[1:] == 0).all()  # channel 2 goes around the bound


def test_nothing_to_absorb() -> None:
    done = equalized(HIGH.replace("ACT", "Relu (h)").replace("CONV", ""), absorb=True)
    assert "falls to 0" in done.reason("c1", "absorb")


def test_biases_need_the_range_of_the_layer() -> None:
    model = graph(HIGH.replace("ACT", "Relu (h)").replace("CONV", ""))
    log = equalize(model, {}, absorb=True).log
    assert [o.reason for o in log if o.rule == "absorb"] == ["the range of its output is not known"]
