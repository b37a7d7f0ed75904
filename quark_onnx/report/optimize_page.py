"""The page of a search to a budget: what was asked, what came out, every point, every layer; and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quark_onnx.core.json_writing import json_text
from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.shown.figures import size
from quark_onnx.core.version import VERSION
from quark_onnx.optimize.records import LayerOption, LayerRow, Optimized, Point
from quark_onnx.report import search_wording as words
from quark_onnx.report.pages import check_target, installed, templates, write_text
from quark_onnx.report.pareto_chart import Axis, Pareto, Tried, pareto

_MEASURED = ("kl", "predicted", "agreement", "sqnr", "score", "latency")
"""Figures of points that not every search has."""


def write_search(found: Optimized, path: str | Path, name: str = "") -> Path:
    """Write the page of a search, and its JSON (`.json` for `.html`), each whole or not at all.

    Args:
        name: of the float model.

    Returns:
        The page; the JSON where jinja2 is missing, and so there is no page.

    Raises:
        ConfigError: the files cannot be written.
    """
    target = Path(path)
    data = target.with_suffix(".json")
    write_text(data, json_text(found.to_dict()) + "\n")
    if not installed():
        return data
    write_text(check_target(target), search_page(found, name, data.name))
    return target


def search_page(found: Optimized, name: str = "", data: str = "") -> str:
    """The page as text; `data`: relative path of its JSON."""
    page = templates().get_template("optimize.html")
    text = page.render(
        o=found,
        point=found.point,
        name=name or "Model",
        data=data,
        output=str(found.output or ""),
        charts=charts(found),
        measured=[name for name in _MEASURED if any(getattr(p, name) is not None for p in found.points)],
        front=[point.number for point in found.front],
        choices=_choices(found.rows),
        settings=_settings(found.point),
        words=words,
        version=VERSION,
    )
    return str(text)


@dataclass(frozen=True)
class _Damage:
    """A figure as an axis: its value for a point, the limit of a budget, what that is called."""

    axis: Axis
    of: Callable[[Point], float | None]
    limit: Callable[[float], float] = float
    sign: str = "≤"


_KL, _NOISE = Axis("KL divergence", log=True), Axis("Noise of the worst output, dB of its signal")

DAMAGES = {
    "kl": _Damage(_KL, lambda point: point.damage),
    "noise": _Damage(_NOISE, lambda point: None if point.damage is None else words.decibels(point.damage)),
    "max_drop": _Damage(Axis("Score lost"), lambda point: point.drop),
    "min_sqnr": _Damage(
        _NOISE,
        lambda point: None if point.sqnr is None else -point.sqnr,
        lambda limit: -limit,
        "≥",
    ),
    "min_agreement": _Damage(
        Axis("Samples with another arg-max", log=True),
        lambda point: None if point.agreement is None else 1 - point.agreement,
        lambda limit: 1 - limit,
        "≥",
    ),
    "max_kl": _Damage(_KL, lambda point: point.kl),
}
"""By what is measured anyway, and by keys of a budget."""


def charts(found: Optimized) -> list[Pareto]:
    """The figure that steers against size and against time, and each other figure that is in the budget."""
    keys = [key for key in DAMAGES if key in found.budget and any(DAMAGES[key].of(p) is not None for p in found.points)]
    first, *others = keys or [found.measure]
    costs = ["time", "size"] if found.objective == "latency" else ["size", "time"]
    drawn = [*((first, cost) for cost in costs), *((key, costs[0]) for key in others)]
    return [chart for key, cost in drawn if (chart := _chart(found, key, cost)) is not None]


def _chart(found: Optimized, key: str, cost: str) -> Pareto | None:
    damage, tried = DAMAGES[key], []
    clocked = all(point.latency for point in found.points if not point.error)
    for point in found.points:
        x, y = _spent(point, cost, clocked), damage.of(point)
        if y is not None and x > 0 and not point.error:
            chosen = point.number == found.chosen
            tried.append(Tried(point.number, x, y, _told(point, found, chosen), not point.over, chosen))
    return pareto(tried, _cost(cost, clocked, tried), damage.axis, _limit(found, key))


def _spent(point: Point, cost: str, clocked: bool) -> float:
    """Bytes; milliseconds where all points have them, else what is estimated."""
    if cost == "size":
        return float(point.size)
    return point.latency[1] if clocked and point.latency else point.time


def _limit(found: Optimized, key: str) -> tuple[float, str] | None:
    """What the budget allows, in units of the axis, and what to call it; None: nothing, or that cannot be told."""
    asked = found.budget.get(key)
    if isinstance(asked, str):  # a share of the float model's score
        drop = None if found.float_score is None else Budget(asked).drop_from(found.float_score)
        return None if drop is None else (drop, f"≤ {asked}")
    return None if asked is None else (DAMAGES[key].limit(asked), f"{DAMAGES[key].sign} {asked:g}")


def _cost(cost: str, clocked: bool, tried: Sequence[Tried]) -> Axis:
    if cost == "time":
        return Axis("Time in kernels on this machine, ms" if clocked else "Estimated time, of the float model's")
    name, unit = ("MB", 1e6) if max((one.x for one in tried), default=0) >= 3e6 else ("kB", 1e3)
    return Axis(f"Size, {name}", unit)


def _told(point: Point, found: Optimized, chosen: bool) -> str:
    """What a point says of itself."""
    parts = [size(point.size), words.part(point.time), words.figures(point)]
    parts += [words.verdict(point)] if found.budget else []
    return f"{point.number}: {point.name}; {', '.join(parts)}{', chosen' if chosen else ''}"


def _choices(rows: Sequence[LayerRow]) -> list[tuple[str, list[LayerOption | None]]]:
    """By choice, in the order of the table: what it is for each layer, where it has it."""
    names = dict.fromkeys(option.choice for row in rows for option in row.options)
    found = [{option.choice: option for option in row.options} for row in rows]
    return [(name, [options.get(name) for options in found]) for name in names]


def _settings(point: Point) -> list[tuple[str, Any]]:
    """Fields of the configuration that say something, the extra options among them."""
    return [entry for entry in _flat(json.loads(point.config)) if entry[1] not in (False, None, "", [], {})]


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if name == "extra_options":
            yield from value.items()
        else:
            yield name, value
