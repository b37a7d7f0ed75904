"""Ranges end where a gate shuts: which tensors have a floor, what it does to their range, and that it is free."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_models import Feed, graph, placed, quantized, run, settings

from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.engine.observe import observe
from quark_onnx.graph import Model
from quark_onnx.stages.ranges import choose_ranges, observed_tensors

HEAD = (
    "(float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[4,4,1,1] v, float s = {2.5}, float z = {0.0}, "
)
HEAD += "float m = {5.0}, float n = {-2.5}, float[4,1,1] k> { h = Conv (x, w) "
GATE = "a = Add (h, s) g = Clip (a, z, m) p = Mul (h, g) y = Conv (p, v) }"
SILU = "g = Sigmoid (h) p = Mul (h, g) y = Conv (p, v) }"
SIGMOID = -math.log(2 * 255 - 1)
"""Below it, 255 σ(x) < 1/2."""


def floors(body: str, **fields: Any) -> dict[str, float]:
    plan = placed(graph(HEAD + body), **fields)
    return {site.tensor: site.floor for site in plan.sites.values() if site.floor is not None}


@pytest.mark.parametrize("body", [GATE, GATE.replace("Mul (h, g)", "Mul (g, h)").replace("Add (h, s)", "Add (s, h)")])
def test_what_is_added_in_front_of_a_clip_is_the_floor(body: str) -> None:
    assert floors(body) == {"h": -2.5}


def test_a_sigmoid_has_no_step_below_its_first() -> None:
    assert floors(SILU) == {"h": pytest.approx(SIGMOID)}
    assert 255 / (1 + math.exp(-SIGMOID)) == pytest.approx(0.5)
    alone = "g = Sigmoid (h) i = Conv (x, w) p = Mul (i, g) y = Conv (p, v) }"
    assert floors(alone) == {"h": pytest.approx(SIGMOID)}


@pytest.mark.parametrize(
    "body",
    [
        GATE.replace("y = Conv (p, v)", "q = Conv (p, v) y = Add (q, h)"),
        GATE.replace("y = Conv (p, v)", "q = Mul (p, g) y = Conv (q, v)"),
        GATE.replace("Mul (h, g)", "Add (h, g)"),
        GATE.replace("Clip (a, z, m)", "Clip (a, n, m)"),
        GATE.replace("Add (h, s)", "Add (h, n)"),
        GATE.replace("Add (h, s)", "Add (h, k)"),
        GATE.replace("Add (h, s)", "Mul (h, s)"),
        GATE.replace("Clip (a, z, m)", "Tanh (a)"),
        SILU.replace("y = Conv (p, v)", "q = Conv (p, v) y = Add (q, h)"),
        SILU.replace("Mul (h, g)", "Add (h, g)"),
        SILU.replace("Sigmoid", "HardSigmoid"),
    ],
)
def test_without_that_gate_there_is_no_floor(body: str) -> None:
    """A third reader, a second one of the gate, a sum, a Clip or a shift of another sign, no one number, no clip."""
    assert floors(body) == {}


def test_a_sigmoid_that_stays_float_has_no_steps() -> None:
    assert floors(SILU.replace("g = S", "[s] g = S"), nodes_to_exclude=("s",)) == {}


def test_scales_that_are_shifted_later_and_given_ranges_have_none() -> None:
    assert floors(GATE, target="vitisai", activation_type="int8", weight_type="int8") == {}
    assert floors(GATE, TensorQuantOverrides={"h": {"rmin": -9.0, "rmax": 1.0}}) == {}


def test_who_shares_a_scale_with_others_has_none() -> None:
    moved = GATE.replace("h = Conv (x, w)", "")
    body = "i = Transpose <perm = [0, 1, 3, 2]> (h) " + moved.replace("(h,", "(i,")
    assert floors(body) == {}


# Ranges


def ranged(data: np.ndarray, body: str = GATE, **fields: Any) -> tuple[Model, Plan]:
    """Of a model whose h is x, with these values."""
    model = graph(HEAD + body, w=np.eye(4, dtype=np.float32)[:, :, None, None])
    sites = placed(model, **fields)
    statistics = observe(model, [{"x": data}], observed_tensors(sites), lambda done: None)
    return model, choose_ranges(model, sites, statistics, settings(**fields))


def ends(plan: Plan, tensor: str = "h") -> tuple[float, float]:
    q, format = plan.qparams_of(tensor), plan.sites[tensor].format
    return float((format.lo - q.zero_point) * q.scale), float((format.hi - q.zero_point) * q.scale)


def values(lo: float, hi: float) -> np.ndarray:
    return np.linspace(lo, hi, 144, dtype=np.float32).reshape(1, 4, 6, 6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_range_ends_at_the_floor_or_a_little_below(symmetric: bool) -> None:
    _, plan = ranged(values(-160, 7), ActivationSymmetric=symmetric)
    lo, hi = ends(plan)
    step = float(plan.qparams_of("h").scale)
    assert hi >= 7 - step
    assert -2.5 - (8 if symmetric else step) <= lo <= -2.5


def test_what_is_seen_above_the_floor_stays_the_end() -> None:
    _, plan = ranged(values(-2, 7))
    _, free = ranged(values(-2, 7), GATE.replace("Add (h, s)", "Mul (h, s)"))
    assert ends(plan) == ends(free)


@pytest.mark.parametrize("method", ["Percentile", "Entropy", "MinMSE"])
def test_methods_see_values_below_the_floor_as_if_at_it(method: str) -> None:
    """Two of three values are there. A bin of the histogram is 0.8 % wide."""
    data = np.where(np.arange(144).reshape(1, 4, 6, 6) % 3 > 0, -160, values(0, 7) ** 3 / 49).astype(np.float32)
    fields = {"calibrate_method": method, "Percentile": 95.0, "activation_type": "int4"}
    _, plan = ranged(data, **fields)
    _, clipped = ranged(np.maximum(data, -2.5), **fields)
    assert ends(plan) == pytest.approx(ends(clipped), rel=0.02)


@pytest.mark.parametrize("top", [1.0, 3.7, 7.0, 31.0])
@pytest.mark.parametrize("body", [GATE, SILU])
def test_below_the_floor_the_product_is_zero(body: str, top: float) -> None:
    """As written, and on integers: the codes of what the second layer reads are that of 0."""
    model = graph(HEAD + body, w=np.eye(4, dtype=np.float32)[:, :, None, None])
    made = quantized(model, [{"x": values(-160, top)}])
    floor = made.plan.sites["h"].floor
    assert floor is not None
    feed: Feed = {"x": values(-160, floor - 0.64)}  # x itself has steps of 0.64
    zero = {"x": np.full_like(feed["x"], -150)}
    for optimized in (False, True):
        np.testing.assert_array_equal(run(made.quantized, feed, optimized=optimized), run(made.quantized, zero))


def test_a_plan_keeps_its_floors(tmp_path: Path) -> None:
    plan = placed(graph(HEAD + GATE))
    folder = plan.save(tmp_path / "plan")
    assert Plan.load(folder).sites == plan.sites
    text = (folder / "plan.json").read_text().replace('"floor": -2.5', '"floor": NaN')
    (folder / "plan.json").write_text(text)
    with pytest.raises(PlanError, match="site 'h' has the lower end nan"):
        Plan.load(folder)
