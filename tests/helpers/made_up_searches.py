"""Searches that nobody ran: values for the page and the command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from quark_onnx.core.settings.presets import get_default_config
from quark_onnx.optimize.records import LayerOption, LayerRow, Optimized, Point

CONFIG = get_default_config("S8S8_AAWS").to_json()


def point(number: int, size: int, damage: float | None, **more: Any) -> Point:
    """A point that gets slower as it gets larger, and better."""
    given: dict[str, Any] = {
        "name": f"try {number}",
        "step": "layers",
        "config": CONFIG,
        "damage": damage,
        "kl": damage,
    }
    given |= {"time": size / 1e6, "integers": 0.97, "seconds": 5.2}
    given |= {} if damage is None else {"agreement": 1 - damage / 4, "sqnr": 12.5 - 2 * damage}
    return Point(number=number, size=size, **(given | more))


def row(name: str, chosen: str = "w4") -> LayerRow:
    """A layer with three choices."""
    options = (
        LayerOption("w4", 0.0123, 1024, 2e6),
        LayerOption("a8w8", 0.00045, 2048, 1e6),
        LayerOption("float", 0.0, 8192, 4e6),
    )
    return LayerRow((name,), "Conv", 2000, options, chosen)


def searched(points: Iterable[Point], chosen: int, **more: Any) -> Optimized:
    """A search that met its budget with a point."""
    given: dict[str, Any] = {
        "objective": "size",
        "budget": {"max_kl": 0.1},
        "met": True,
        "reason": "the smallest of 6 points that is within the budget",
        "measure": "kl",
        "float_size": 1_917_205,
        "result": None,
        "samples": (150, 50),
        "seconds": 31.4,
    }
    return Optimized(points=tuple(points), chosen=chosen, **(given | more))


def mobilenet() -> Optimized:
    """A search as it is of a small MobileNet: a ladder, then layer by layer."""
    ladder = [
        point(1, 540_812, 1.92, name="int8 per tensor", step="ladder", over=("KL 1.92, and may be 0.1",)),
        point(2, 544_297, 0.103, name="int8 per channel", step="ladder", over=("KL 0.103, and may be 0.1",)),
        point(3, 544_301, 0.0361, name="biases corrected", step="ladder"),
    ]
    walk = [
        point(4, 307_120, 0.281, name="weights of 4 bits", predicted=0.24, over=("KL 0.281, and may be 0.1",)),
        point(5, 329_500, 0.0711, name="4 bits in 17 of 28 layers", predicted=0.0692),
        point(6, 318_040, 0.094, name="4 bits in 20 of 28 layers", predicted=0.0951),
        replace(point(7, 0, None, name="4 bits everywhere"), error="the model has no weights", time=0.0, integers=0.0),
    ]
    rows = [row(f"features.{index}.conv", ("w4", "a8w8", "float")[index % 3]) for index in range(6)]
    advice = (
        "307 kB, KL 0.281: --max-kl 0.284",
        "330 kB, KL 0.0711: --max-kl 0.0718",
    )
    return searched([*ladder, *walk], 6, rows=tuple(rows), advice=advice, warnings=("few samples",))
