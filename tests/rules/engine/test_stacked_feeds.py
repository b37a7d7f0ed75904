"""Samples that run together: only where that makes of each what it makes of it alone, and never another result."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from quantized_models import Feed, graph, quantized
from text_models import normal

from quark_onnx.core.plan import Plan
from quark_onnx.engine import activation_walk
from quark_onnx.engine.activation_walk import Frontier, walk
from quark_onnx.engine.runner import Runner
from quark_onnx.engine.stacked_feeds import ROOM, TOGETHER, Stack, apart, joined, stacks
from quark_onnx.graph import Node

Seen = dict[str, list[np.ndarray]]
PLAIN = """(float[N,4,6,6] x) => (float[N,5] y) {
    [one] a = Conv <pads = [1, 1, 1, 1]> (x, w1) [relu] b = Relu (a) [two] c = Conv (b, w2)
    [flat] f = Flatten (c) [head] y = MatMul (f, w3)
}"""
WEIGHTS = {"w1": normal(4, 4, 3, 3), "w2": normal(3, 4, 3, 3), "w3": normal(48, 5)}
LAYERS = ["one", "two", "head"]


def feeds(count: int, *shape: int, seed: int = 0) -> list[Feed]:
    return [{"x": normal(*shape, seed=seed + i)} for i in range(count)]


def walked(
    text: str,
    arrays: dict[str, Any],
    data: list[Feed],
    layers: list[str],
    monkeypatch: pytest.MonkeyPatch,
    **fields: Any,
) -> tuple[Seen, Seen, list[int]]:
    """What a visitor sees with stacks and with each sample alone, and how many samples each run with stacks had."""
    model = graph(text, **arrays)
    plan = quantized(model, data).plan
    sizes: list[int] = []
    run = Runner.__call__

    def counted(self: Runner, feed: Feed) -> Any:
        sizes.append(len(next(iter(feed.values()))) if feed else 0)
        return run(self, feed)

    def seen() -> Seen:
        found: Seen = {}

        def visit(node: Node, frontier: Frontier, current: Plan) -> Plan:
            for value in node.inputs:
                if value is not None and not value.is_initializer():
                    name = value.name or ""
                    found[f"{node.name} exact"] = [np.array(a) for a in frontier.exact[name]]
                    found[f"{node.name} rounded"] = [np.array(a) for a in frontier.rounded[name]]
            return current

        walk(model, plan, data, layers, visit, 1 << 28)
        return found

    monkeypatch.setattr(Runner, "__call__", counted)
    together = seen()
    monkeypatch.setattr(Runner, "__call__", run)
    monkeypatch.setattr(activation_walk, "stacks", lambda model, samples, count: apart(count))
    return together, seen(), sizes


def assert_same(one: Seen, other: Seen, exactly: bool = False) -> None:
    assert one.keys() == other.keys() and one
    for key, arrays in one.items():
        for a, b in zip(arrays, other[key], strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            if exactly:
                np.testing.assert_array_equal(a, b)
            elif a.dtype.kind == "f":
                np.testing.assert_allclose(a, b, rtol=0, atol=2.0**-12 * float(np.abs(b).max(initial=0)))
            else:
                assert np.abs(a.astype(int) - b).max(initial=0) <= 1


def test_samples_run_together_and_are_seen_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = feeds(20, 1, 4, 6, 6)
    together, alone, sizes = walked(PLAIN, WEIGHTS, data, LAYERS, monkeypatch)
    assert_same(together, alone)
    assert len(together["two exact"]) == 20 and together["two exact"][0].shape == (1, 4, 6, 6)
    # two segments on two sides; in each the samples of the first stack once more one by one
    assert Counter(sizes) == {1: 4 * TOGETHER, TOGETHER: 4 * 20 // TOGETHER}


def test_batches_of_several_samples_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone, sizes = walked(PLAIN, WEIGHTS, feeds(16, 3, 4, 6, 6), LAYERS, monkeypatch)
    assert_same(together, alone)
    assert max(sizes) == 3 * TOGETHER and together["two rounded"][5].shape == (3, 4, 6, 6)


def test_samples_of_other_shapes_run_with_their_like_or_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = PLAIN.replace("6,6]", "H,W]").replace("Flatten (c)", "ReduceMean <axes = [2, 3], keepdims = 0> (c)")
    large, small = feeds(16, 1, 4, 6, 6), feeds(3, 1, 4, 5, 7, seed=50)
    data = [*large[:9], small[0], *large[9:], *small[1:]]
    together, alone, sizes = walked(text, WEIGHTS | {"w3": normal(3, 5)}, data, LAYERS, monkeypatch)
    assert_same(together, alone)
    assert sizes.count(TOGETHER) == 4 * 16 // TOGETHER
    assert together["two exact"][9].shape == (1, 4, 5, 7)


MIXING = {
    "the mean of the batch": "[mix] b = ReduceMean <axes = [0], keepdims = 1> (a) [sub] c = Sub (a, b)",
    "the largest of all": "[mix] b = ReduceMax <keepdims = 0> (a) [sub] c = Div (a, b)",
    "a fixed size": "[mix] b = Reshape (a, fixed) [sub] c = Abs (b)",
    "a sum along the batch": "[mix] c = CumSum (a, zero)",
    "the order of the batch": "[mix] c = Transpose <perm = [1, 0, 2, 3]> (a)",
    "a norm over all": "[mix] b = LpNormalization <axis = 0, p = 2> (a) [sub] c = Abs (b)",
    "one tensor for all": "[mix] b = ReduceSum <keepdims = 1> (a) [sub] c = Add (b, one4)",
    "what is not nought": "[mix] p = Relu (a) [z] n = NonZero (p) [t] u = Transpose <perm = [1, 0]> (n) "
    "[h] g = GatherND (p, u) [r] b = Reshape (g, rows) [s] c = Mul (b, one6)",
    "a body": "[g] m = ReduceMax <keepdims = 0> (a) [l] h = Less (m, limit) [i] c = If (h) <then_branch = t () => "
    "(float[N,4,6,6] u) { [neg] u = Neg (a) }, else_branch = e () => (float[N,4,6,6] v) { [abs] v = Abs (a) }>",
}


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_samples_runs_them_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit what each makes alone: nothing of the stacks that were tried is left."""
    text = (
        "(float[N,4,6,6] x) => (float[A,B,C,D] y) { [zero] o = Relu (x) [one] a = Conv <pads = [1, 1, 1, 1]> (o, w1) "
    )
    text += f"{MIXING[name]} [two] y = MatMul (c, w4) }}"
    arrays = {
        "w1": WEIGHTS["w1"],
        "w4": normal(6, 5),
        "fixed": np.int64([1, 4, 6, 6]),
        "rows": np.int64([-1, 1, 1, 1]),
        "one6": np.ones((1, 1, 1, 6), np.float32),
        "zero": np.int64(0),
        "one4": np.ones((1, 4, 6, 6), np.float32),
        "limit": np.float32(4),
    }
    arrays = {key: array for key, array in arrays.items() if key in text.replace("[one]", "")}
    together, alone, _ = walked(text, arrays, feeds(24, 1, 4, 6, 6), ["one", "two"], monkeypatch)
    for key in ("two exact", "two rounded"):
        assert_same({key: together[key]}, {key: alone[key]}, exactly=True)


ALIKE_AT_FIRST = {
    "divided by the largest": ("[m] m = ReduceMax <keepdims = 0> (x) [n] n = Div (x, m)", 1.0, 1.0),
    "clipped by their norm": (
        "[m] l = ReduceL2 <keepdims = 0> (x) [k] m = Max (l, limit) [n] n = Div (x, m)",
        0.05,
        0.0,
    ),
    "black, less their mean": ("[m] m = ReduceMean <axes = [0], keepdims = 1> (x) [n] n = Sub (x, m)", 0.0, 0.0),
    "a range of all": ("[q] q, s, z = DynamicQuantizeLinear (x) [n] n = DequantizeLinear (q, s, z)", 1.0, 1.0),
}


@pytest.mark.parametrize("name", ALIKE_AT_FIRST)
def test_samples_that_do_not_show_that_they_are_mixed_are_not_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first half nothing is to be seen, as it is black, as bright as can be, or below a limit."""
    nodes, size, most = ALIKE_AT_FIRST[name]
    text = f"(float[N,8] x) => (float[N,5] y) {{ {nodes} [one] a = MatMul (n, v) [r] b = Relu (a) "
    text += "[two] y = MatMul (b, w) }"
    data = [{"x": np.abs(normal(1, 8, seed=i)).clip(0, 1) * np.float32(size if i < 12 else 3 / i)} for i in range(24)]
    for feed in data[:12]:
        feed["x"][0, 0] = most
    arrays = {"v": normal(8, 6), "w": normal(6, 5)} | ({"limit": np.float32(0.3)} if "limit" in nodes else {})
    together, alone, sizes = walked(text, arrays, data, ["one", "two"], monkeypatch)
    assert_same(together, alone, exactly=True)
    assert max(sizes) == TOGETHER


def test_a_mix_of_few_rows_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean along an axis that goes on from one sample to the next: one row of 300 is off."""
    text = """(float[T,6] x) => (float[T,5] y) { [one] a = MatMul (x, v) [u] u = Unsqueeze (a, at)
        [t] t = Transpose <perm = [0, 2, 1]> (u) [p] p = AveragePool <kernel_shape = [2], pads = [1, 0]> (t)
        [b] b = Transpose <perm = [0, 2, 1]> (p) [s] s = Squeeze (b, at) [two] y = MatMul (s, w) }"""
    arrays = {"v": normal(6, 6), "w": normal(6, 5), "at": np.int64([0])}
    together, alone, sizes = walked(text, arrays, feeds(12, 300, 6), ["one", "two"], monkeypatch)
    assert_same(together, alone, exactly=True)
    assert max(sizes) == 300 * TOGETHER


def test_rows_that_come_by_chance_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first samples becomes one row; of the others as many as four samples have, but not one each."""
    text = """(float[N,3,4] x) => (float[M,5] y) { [one] a = MatMul (x, v)
        [m] s = ReduceMax <axes = [2], keepdims = 0> (x) [g] g = Greater (s, limit)
        [c] c = Cast <to = 1> (g) [n] n = NonZero (c) [t] t = Transpose <perm = [1, 0]> (n)
        [h] h = GatherND (a, t) [two] y = MatMul (h, w) }"""
    data = [{"x": np.full((1, 3, 4), -1, np.float32)} for _ in range(24)]
    for i, feed in enumerate(data):
        feed["x"][0, : 1 if i < 12 else (2, 0, 1, 1)[i % 4]] = i + 1
    arrays = {"v": normal(4, 4), "w": normal(4, 5), "limit": np.float32(0)}
    together, alone, _ = walked(text, arrays, data, ["one", "two"], monkeypatch)
    assert_same(together, alone)


def test_a_size_that_comes_by_chance_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut behind the largest value of all: in none of the first samples, which say no less of themselves, the last."""
    text = """(float[N,3,4] x) => (float[N,L,5] y) { [one] a = MatMul (x, v)
        [m] m = ArgMax <axis = 1> (x) [f] f = Cast <to = 1> (m) [g] g = ReduceMax <keepdims = 0> (f)
        [i] i = Cast <to = 7> (g) [p] p = Add (i, one1) [h] h = Slice (a, one1, p, one1) [two] y = MatMul (h, w) }"""
    data = [{"x": np.zeros((1, 3, 4), np.float32)} for _ in range(24)]
    for i, feed in enumerate(data):
        feed["x"][0, 1 if i < 12 else 1 + i % 2] = 1
    arrays = {"v": normal(4, 4), "w": normal(4, 5), "one1": np.int64([1])}
    together, alone, sizes = walked(text, arrays, data, ["one", "two"], monkeypatch)
    assert_same(together, alone)
    assert max(sizes) == TOGETHER


def test_ranges_that_are_found_at_run_time_are_those_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "(float[N,8] x) => (float[N,5] y) { [one] a = MatMul (x, v) [r] b = Relu (a) [two] y = MatMul (b, w) }"
    arrays = {"v": normal(8, 6), "w": normal(6, 5)}
    together, alone, _ = walked(text, arrays, feeds(24, 1, 8), ["one", "two"], monkeypatch)
    assert_same(together, alone)


def signature(text: str, data: list[Feed]) -> list[Stack]:
    model = graph(text, **WEIGHTS)
    return stacks(model, {"x": [feed["x"] for feed in data]}, len(data))


def test_only_an_open_first_axis_can_be_stacked() -> None:
    data = feeds(24, 1, 4, 6, 6)
    found = signature(PLAIN, data)
    assert [len(stack.members) for stack in found] == [TOGETHER] * (24 // TOGETHER)
    assert [stack.first for stack in found] == [True] + [False] * (len(found) - 1)
    assert signature(PLAIN.replace("[N,4", "[1,4"), data) == apart(24)
    assert signature(PLAIN, data[: 2 * TOGETHER - 1]) == apart(2 * TOGETHER - 1)  # not worth comparing


def test_batches_are_bounded() -> None:
    size = ROOM // (3 * 4 * 4)
    large = [{"x": np.zeros((1, 4, size, 1), np.float32)}] * 12
    assert {len(stack.members) for stack in signature(PLAIN, large)} == {3}
    huge = [{"x": np.zeros((1, 4, 2 * size, 1), np.float32)}] * 12
    assert signature(PLAIN, huge) == apart(12)


def test_parts_of_one_array_are_joined_without_a_copy() -> None:
    whole = np.arange(24.0).reshape(6, 4)
    parts = np.split(whole, 3)
    assert np.shares_memory(joined(parts), whole)
    for arrays in (
        parts,
        parts[1:],
        parts[::-1],
        parts[::2],
        [*parts[:2], parts[2].copy()],
        [whole[:, :2], whole[:, 2:]],
    ):
        np.testing.assert_array_equal(joined(arrays), np.concatenate(arrays))


@pytest.mark.parametrize(
    "spread", [lambda a: a[:, None], lambda a: a[:, None, ::-1], lambda a: a[:, None].swapaxes(2, 3)]
)
def test_an_axis_of_one_row_may_have_any_stride(spread: Any) -> None:
    """`images[:, None]` has samples of one row each, whose first stride is 0."""
    parts = list(spread(normal(3, 2, 5)))
    assert parts[0].strides[0] == 0
    np.testing.assert_array_equal(joined(parts), np.concatenate(parts))
