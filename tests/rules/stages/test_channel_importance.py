"""Importance: squared weights propagated backwards, checked against noise that is really sent through the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantized_models import constants, graph, run

from quark_onnx.graph import Model, io
from quark_onnx.stages.channel_importance import channel_importance

IMAGE = "(float[1,3,8,8] x) => (float[A,B,C,D] y)"
ROW = "(float[1,3,8,8] x) => (float[A,B] y)"
W1 = "float[4,3,3,3] w1, float[4] b1"
FIRST = "[c1] h = Conv (x, w1, b1)"
SECOND = "[c2] y = Conv (a, w2)"


def gains(text: str, **arrays: Any) -> tuple[Model, dict[str, np.ndarray]]:
    """Every gain is positive, of mean 1, one per channel of its tensor; the graph is not touched."""
    model = graph(text, **arrays)
    before = io.fingerprint(model)
    found = channel_importance(model)
    assert io.fingerprint(model) == before
    for gain in found.values():
        assert gain.ndim == 1
        assert (gain >= 0).all()
        assert gain.mean() == pytest.approx(1)
    return model, found


def energy(weight: np.ndarray, *axes: int) -> np.ndarray:
    """Squares summed over all but the input's axis, of mean 1."""
    sums = np.square(weight, dtype=np.float64).sum(axes)
    return np.asarray(sums / sums.mean())


PASSING: dict[str, str] = {
    "nothing": "a = Identity (h)",
    "Relu": "a = Relu (h)",
    "Clip": "a = Clip (h)",
    "Sigmoid": "a = Sigmoid (h)",
    "a gate": "s = Sigmoid (h) a = Mul (h, s)",
    "half of it": "a = Mul (h, two)",
    "pool": "a = MaxPool <kernel_shape=[2,2]> (h)",
    "Pad": "a = Pad (h, p)",
    "Slice of positions": "a = Slice (h, start, end, axes)",
    "a shape": "s = Shape (h) a = Reshape (h, s)",
    "Add of a constant": "a = Add (h, k)",
}
NUMBERS = {
    "two": np.float32(2),
    "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "start": np.array([0, 1]),
    "end": np.array([4, 5]),
    "axes": np.array([-1, 2]),
    "k": np.ones((1, 4, 1, 1), np.float32),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_mix_channels_passes(name: str) -> None:
    text = f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ {FIRST} {PASSING[name]} {SECOND} }}"
    needed = {key: array for key, array in NUMBERS.items() if f" {key}" in PASSING[name].split("(", 1)[1]}
    model, found = gains(text, **needed)
    want = energy(constants(model)["w2"], 0, 2, 3)
    np.testing.assert_allclose(found["a"], want)
    np.testing.assert_allclose(found["h"], want)
    assert "y" not in found  # an output of the model: all channels alike


LAYERS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "depthwise": ("float[4,1,3,3] w2", "[c2] y = Conv <group=4> (a, w2)", (1, 2, 3)),
    "transposed": ("float[4,2,3,3] w2", "[c2] y = ConvTranspose <group=2> (a, w2)", (1, 2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_other_convolutions(name: str) -> None:
    declared, node, axes = LAYERS[name]
    model, found = gains(f"{IMAGE} <{W1}, {declared}> {{ {FIRST} a = Relu (h) {node} }}")
    np.testing.assert_allclose(found["h"], energy(constants(model)["w2"], *axes))


def test_groups_read_their_own_channels() -> None:
    model, found = gains(f"{IMAGE} <{W1}, float[6,2,3,3] w2> {{ {FIRST} [c2] y = Conv <group=2> (h, w2) }}")
    squares = np.square(constants(model)["w2"], dtype=np.float64).reshape(2, 3, 2, 9).sum((1, 3)).reshape(-1)
    np.testing.assert_allclose(found["h"], squares / squares.mean())


def test_gemm_behind_flattened_positions() -> None:
    model, found = gains(f"{ROW} <{W1}, float[144,5] w2> {{ {FIRST} f = Flatten (h) [g] y = Gemm (f, w2) }}")
    want = energy(constants(model)["w2"], 1)
    np.testing.assert_allclose(found["f"], want)
    np.testing.assert_allclose(found["h"], want.reshape(4, 36).mean(1))


def test_a_matmul_of_rank_3_has_its_channels_last() -> None:
    text = "(float[2,7,3] x) => (float[2,7,5] y) <float[3,4] w1, float[4] b, float[4,5] w2>" + (
        " { h = MatMul (x, w1) i = Add (h, b) a = Erf (i) y = MatMul (a, w2) }"
    )
    model, found = gains(text)
    for name in ("h", "i", "a"):
        np.testing.assert_allclose(found[name], energy(constants(model)["w2"], 1))


def test_it_is_the_noise_that_arrives() -> None:
    """Unit noise in one channel at a time, through two linear layers and a residual Add, against the prediction."""
    text = f"{IMAGE} <{W1}, float[4,4,1,1] w2, float[5,4,1,1] w3>" + (
        f" {{ {FIRST} [c2] i = Conv (h, w2) s = Add (i, h) [c3] y = Conv (s, w3) }}"
    )
    arrays = {"w2": np.zeros((4, 4, 1, 1), np.float32), "w3": np.zeros((5, 4, 1, 1), np.float32)}
    arrays["w2"][[0, 1, 2, 3], [1, 0, 3, 2]] = np.array([[1], [2], [0.5], [3]], np.float32).reshape(4, 1, 1)
    arrays["w3"][[0, 1, 2, 3], [0, 1, 2, 3]] = np.array([[2], [1], [4], [0.1]], np.float32).reshape(4, 1, 1)
    _, found = gains(text, **arrays)
    cut = graph(
        "(float[1,4,6,6] h) => (float[A,B,C,D] y) <float[4,4,1,1] w2, float[5,4,1,1] w3>"
        " { i = Conv (h, w2) s = Add (i, h) y = Conv (s, w3) }",
        **arrays,
    )
    arrived = []
    for channel in range(4):
        noise = np.zeros((1, 4, 6, 6), np.float32)
        noise[:, channel] = 1
        arrived.append(float(np.square(run(cut, {"h": noise})[0], dtype=np.float64).sum()))
    np.testing.assert_allclose(found["h"], np.array(arrived) / np.mean(arrived), rtol=1e-6)


def test_concat_hands_out_parts() -> None:
    text = f"{IMAGE} <{W1}, float[2,3,3,3] w3, float[5,6,1,1] w2>" + (
        f" {{ {FIRST} g = Conv (x, w3) a = Concat <axis=-3> (h, g) {SECOND} }}"
    )
    model, found = gains(text)
    want = energy(constants(model)["w2"], 0, 2, 3)
    np.testing.assert_allclose(found["h"], want[:4] / want[:4].mean())
    np.testing.assert_allclose(found["g"], want[4:] / want[4:].mean())


def test_one_tensor_twice_in_a_concat() -> None:
    model, found = gains(f"{IMAGE} <{W1}, float[5,8,1,1] w2> {{ {FIRST} a = Concat <axis=1> (h, h) {SECOND} }}")
    want = energy(constants(model)["w2"], 0, 2, 3).reshape(2, 4).sum(0)
    np.testing.assert_allclose(found["h"], want / want.mean())


def test_channels_that_are_added_or_left_out() -> None:
    """The shortcut of a narrow ResNet: zeros for new channels; and a Slice, whose rest nobody reads."""
    text = f"{IMAGE} <{W1}, int64[8] p, float[5,7,1,1] w2> {{ {FIRST} a = Pad (h, p) {SECOND} }}"
    model, found = gains(text, p=np.array([0, 1, 0, 0, 0, 2, 0, 0]))
    want = energy(constants(model)["w2"], 0, 2, 3)[1:5]
    np.testing.assert_allclose(found["h"], want / want.mean())
    assert "h" not in gains(text, p=np.array([0, 4, 0, 0, 0, -1, 0, 0]))[1]  # one goes, four come
    text = f"{IMAGE} <{W1}, int64[1] s, int64[1] e, int64[1] i, int64[1] t, float[5,2,1,1] w2>" + (
        f" {{ {FIRST} a = Slice (h, s, e, i, t) {SECOND} }}"
    )
    ends = {"s": np.array([3]), "e": np.array([-(2**62)]), "i": np.array([1]), "t": np.array([-2])}
    model, found = gains(text, **ends)
    last, first = energy(constants(model)["w2"], 0, 2, 3)
    np.testing.assert_allclose(found["h"], np.array([0, first, 0, last]) * 2)


UNKNOWN: dict[str, str] = {
    "unknown operator": "a = Softmax <axis=1> (h)",
    "one of two readers": "t = CumSum (h, z) a = Add (h, t)",
    "Transpose": "a = Transpose <perm=[0,1,3,2]> (h)",
    "a factor per channel": "a = Mul (h, k)",
    "mean over channels": "m = ReduceMean <axes=[1]> (h) a = Add (h, m)",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_understood_has_no_entry(name: str) -> None:
    text = f"{IMAGE} <{W1}, float[1,4,1,1] k, int64 z, float[5,4,3,3] w2> {{ {FIRST} {UNKNOWN[name]} {SECOND} }}"
    model, found = gains(text, z=np.int64(2))
    assert "h" not in found
    np.testing.assert_allclose(found["a"], energy(constants(model)["w2"], 0, 2, 3))
    np.testing.assert_allclose(found["x"], energy(constants(model)["w1"], 0, 2, 3))  # as if all of h were alike


def test_a_control_flow_body_is_not_understood() -> None:
    text = f"(float[1,3,8,8] x, bool q) => (float[A,B,C,D] y, float[1,4,6,6] z) <{W1}, float[5,4,3,3] w2>" + (
        f" {{ {FIRST} a = Relu (h) {SECOND} z = If (q) <then_branch = t () => (float[1,4,6,6] u) {{ u = Relu (a) }},"
        " else_branch = e () => (float[1,4,6,6] v) { v = Abs (a) }> }"
    )
    assert set(gains(text)[1]) == {"x"}


def test_an_output_that_is_read_too_counts_as_both() -> None:
    """The output's own share is 1 for every channel."""
    text = f"(float[1,3,8,8] x) => (float[A,B,C,D] y, float[1,4,6,6] h) <{W1}, float[5,4,3,3] w2> {{ {FIRST}" + (
        " [c2] y = Conv (h, w2) }"
    )
    model, found = gains(text)
    want = 1 + np.square(constants(model)["w2"], dtype=np.float64).sum((0, 2, 3))
    np.testing.assert_allclose(found["h"], want / want.mean())


def test_deep_models_do_not_overflow() -> None:
    """200 layers that each multiply the energy by about 1e4."""
    layers = range(200)
    declared = ", ".join(f"float[4,4,1,1] w{i}" for i in layers)
    nodes = " ".join(f"t{i + 1} = Conv (t{i}, w{i})" for i in layers)
    weight = 50 * (np.eye(4, dtype=np.float32) + np.float32(0.1))[..., None, None]
    text = f"(float[1,4,2,2] t0) => (float[A,B,C,D] t200) <{declared}> {{ {nodes} }}"
    _, found = gains(text, **dict.fromkeys((f"w{i}" for i in layers), weight))
    np.testing.assert_allclose(found["t0"], 1)


def test_weights_that_are_nothing_or_infinite() -> None:
    for number in (0, np.inf, np.nan):
        _, found = gains(
            f"{IMAGE} <{W1}, float[5,4,3,3] w2> {{ {FIRST} a = Relu (h) {SECOND} }}",
            w2=np.full((5, 4, 3, 3), number, np.float32),
        )
        assert set(found) == {"x"}
