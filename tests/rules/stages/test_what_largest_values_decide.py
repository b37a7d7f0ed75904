"""Tensors whose range the largest values decide are not counted in full, and nothing is decided otherwise for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_models import Feed, feeds, graph, settings

from quark_onnx import Config, ModelQuantizer, decided_ranges
from quark_onnx.core.plan import Plan
from quark_onnx.core.plan_diff import diff
from quark_onnx.graph import io
from quark_onnx.numerics.ranges import calibration_statistics
from quark_onnx.numerics.ranges.calibration_statistics import Statistics

HEAD = "(float[1,4,6,6] x) => (float[1,M,6,6] y) <float[4,4,1,1] w, float[4,4,1,1] v, float[8,4,1,1] u, "
HEAD += "float[4,8,1,1] d, float[1,4,6,6] k, float s = {2.5}, float z = {0.0}, float m = {5.0}> "

Told = dict[str, float]


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Magnitudes from which on tensors were counted in the last pass. All of a few values is enough to find them."""
    monkeypatch.setattr(calibration_statistics, "FIRST", 64)
    monkeypatch.setattr(calibration_statistics, "WAITING", 1)
    found: Told = {}
    observe = decided_ranges.observe

    def told(*arguments: Any, **more: Any) -> Mapping[str, Statistics]:
        seen = observe(*arguments, **more)
        found.clear()
        found.update({tensor: s.told for tensor, s in seen.items()})
        return seen

    monkeypatch.setattr(decided_ranges, "observe", told)
    return found


def plan(nodes: str, data: list[Feed] | None = None, cache: Path | None = None, **fields: Any) -> Plan:
    model = graph(f"{HEAD} {{ {nodes} }}")
    data = feeds(model, count=6) if data is None else data
    config = settings(**{"calibrate_method": "Percentile", "include_cle": False, "activation_type": "uint8", **fields})
    return ModelQuantizer(Config(config)).quantize_model(io.to_proto(model), None, data, calibration_cache=cache).plan


CONVS = "h = Conv (x, w)  y = Conv (h, v)"
OVERRIDE = {"TensorQuantOverrides": {"h": [{"calibrate_method": "Entropy"}]}}
IN_FULL = {  # what wants all values of h: nodes, fields, and nodes and fields that do not
    "method": (CONVS, {"calibrate_method": "Entropy"}, CONVS, {}),
    "a threshold per end": (CONVS, {"CalibTensorRangeSymmetric": False}, CONVS, {}),
    "override": (CONVS, OVERRIDE, CONVS, {}),
    "gate": (
        "h = Conv (x, w)  a = Add (h, s)  g = Clip (a, z, m)  p = Mul (h, g)  y = Conv (p, v)",
        {},
        "h = Conv (x, w)  a = Add (h, s)  g = Clip (a, z, m)  p = Add (h, g)  y = Conv (p, v)",
        {},
    ),
    "divisor": (
        "h = Conv (x, w)  e = Div (x, h)  y = Conv (e, v)",
        {"target": "qnn"},
        "h = Conv (x, w)  e = Mul (x, h)  y = Conv (e, v)",
        {"target": "qnn"},
    ),
    "constant": (
        "h = Conv (x, w)  c = Concat <axis=1> (h, k)  y = Conv (c, d)",
        {"target": "qnn"},
        "h = Conv (x, w)  c = Conv (h, u)  y = Conv (c, d)",
        {"target": "qnn"},
    ),
}


@pytest.mark.parametrize(("nodes", "fields", "twin", "other"), IN_FULL.values(), ids=IN_FULL)
def test_what_more_than_the_largest_values_decide_is_counted_in_full(
    nodes: str, fields: dict[str, Any], twin: str, other: dict[str, Any], told: Told, tmp_path: Path
) -> None:
    for cache, (text, more), full in zip("ab", [(nodes, fields), (twin, other)], [True, False], strict=True):
        found = plan(text, **more)
        leader = found.sites["h"].group if "h" in found.sites else "h"
        assert (told[leader] == 0) == full
        assert diff(found, plan(text, cache=tmp_path / f"{cache}.npz", **more)) == []
        assert set(told.values()) == {0.0}  # a cache serves any method


@pytest.mark.parametrize("method", ["MinMax", "Percentile", "NonOverflow"])
@pytest.mark.parametrize("late", [1.0, 3e4, 1e25], ids=["alike", "loud", "absurd"])
def test_a_last_sample_that_is_loud_is_told_as_from_a_full_count(
    method: str, late: float, told: Told, tmp_path: Path
) -> None:
    data = feeds(graph(f"{HEAD} {{ {CONVS} }}"), count=6)
    data[-1]["x"].flat[0] *= np.float32(late)
    found = plan(CONVS, data, calibrate_method=method, Percentile=99.99)
    assert told["x"] > 0
    assert ("x" in found.sites) == (late == 1)
    assert diff(found, plan(CONVS, data, tmp_path / "cache.npz", calibrate_method=method, Percentile=99.99)) == []


def test_moving_averages_are_those_of_a_full_count(told: Told, tmp_path: Path) -> None:
    options = {"calibrate_method": "MinMax", "CalibMovingAverage": True, "CalibMovingAverageConstant": 0.25}
    found = plan(CONVS, **options)
    assert told["x"] > 0
    assert diff(found, plan(CONVS, cache=tmp_path / "cache.npz", **options)) == []
