"""Plots of what calibration saw. The only home of matplotlib, which is optional: `pip install 'quark-onnx[plot]'`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.visible_text import visible
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution

BINS = 256
SUFFIXES = (".png", ".svg", ".pdf")

SIZE = (8.0, 3.5)
"""Inches."""

LEAST = 0.5
"""Where the axis of counts begins: a bin with a single value is seen."""


def plot_histogram(statistics: Statistics, ends: tuple[float, float], title: str, path: str | Path) -> float:
    """Write a plot of a tensor's values, counts on a logarithmic axis, with the range (lo, hi) that was chosen.

    Needs matplotlib, of which no global state is touched. Values that are not finite are not drawn.

    Args:
        ends: the real values of the lowest and the highest code.
        path: a .png, .svg or .pdf file, written whole or not at all; one that exists is replaced.

    Returns:
        The part of the finite values that is outside of the range, to a bin of the statistics (0.8 %).

    Raises:
        ConfigError: matplotlib is missing, the file type is another one, or the file cannot be written.
    """
    target, figure = _target(path), _figure()
    distribution = Distribution.of(statistics)
    outside = part_outside(distribution, ends)
    axes = figure.add_subplot()
    _draw(axes, distribution, ends)
    axes.set_title(f"{_plain(title)}\n{ends[0]:.4g} … {ends[1]:.4g}, {outside:.2%} outside", fontsize="medium")
    _save(figure, target)
    return outside


def plot_layers(
    names: Sequence[str], isolated: Sequence[float], accumulated: Sequence[float | None], title: str, path: str | Path
) -> None:
    """Write a plot of the error of layers in dB, in the order given; what is infinite is drawn at the upper edge.

    Raises:
        ConfigError: see `plot_histogram`.
    """
    target, figure = _target(path), _figure(max(SIZE[0], 0.16 * len(names)))
    axes, places = figure.add_subplot(), np.arange(len(names))
    ends = [value for value in (*isolated, *accumulated) if value is not None and np.isfinite(value)]
    top = max(ends, default=0.0) + 5
    axes.plot(
        places,
        np.clip(_floats(accumulated), 0, top),
        "o-",
        color="tab:blue",
        label="all in front quantized",
        clip_on=False,
    )
    axes.plot(places, np.clip(_floats(isolated), 0, top), "D", color="tab:purple", label="alone", clip_on=False)
    axes.set_ylim(0, top)
    axes.set_xticks(places, [_short(name) for name in names], rotation=90, fontsize="x-small")
    axes.set_ylabel("SQNR, dB")
    axes.grid(axis="y", alpha=0.4)
    axes.set_title(_plain(title), fontsize="medium")
    axes.legend(fontsize="small")
    _save(figure, target)


def plot_ranking(names: Sequence[str], values: Sequence[float], what: str, title: str, path: str | Path) -> None:
    """Write bars, the first name on top. `what`: the axis of the values.

    Raises:
        ConfigError: see `plot_histogram`.
    """
    target, figure = _target(path), _figure(height=max(2.0, 0.22 * len(names) + 1))
    axes = figure.add_subplot()
    axes.barh(np.arange(len(names)), values, color="tab:blue")
    axes.set_yticks(np.arange(len(names)), [_short(name) for name in names], fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel(_plain(what))
    axes.set_title(_plain(title), fontsize="medium")
    _save(figure, target)


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    """NaN where there is none: nothing is drawn there."""
    return np.asarray([np.nan if value is None else value for value in values], np.float64)


def _short(name: str, most: int = 40) -> str:
    """The end of a name, where names of layers differ."""
    return _plain(name if len(name) <= most else f"…{name[1 - most :]}")


def _plain(text: str) -> str:
    """The text as it is: matplotlib would set what stands between dollar signs as a formula; SVG has no controls."""
    return visible(text).replace("$", r"\$")


def check_installed() -> None:
    """Raises ConfigError where matplotlib is missing."""
    _figure()


def part_outside(distribution: Distribution, ends: tuple[float, float]) -> float:
    """The part of the values that is smaller than lo or larger than hi, by more than rounding; 0 of nothing."""
    slack = 1e-6 * (ends[1] - ends[0])
    inside = distribution.below(ends[1] + slack, "right") - distribution.below(ends[0] - slack)
    return 1 - float(inside) / distribution.count if distribution.count else 0.0


def _target(path: str | Path) -> Path:
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"a plot cannot be written to {target.name!r}: give a name that ends in {', '.join(SUFFIXES)}"
        )
    return target


def _save(figure: Any, target: Path) -> None:
    with new_file(target) as file:
        figure.savefig(file, dpi=120)


def _figure(width: float = SIZE[0], height: float = SIZE[1]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib, which is not installed: pip install 'quark-onnx[plot]'") from None
    return Figure(figsize=(min(width, 200.0), min(height, 200.0)), layout="constrained")


def _draw(axes: Any, distribution: Distribution, ends: tuple[float, float]) -> None:
    """Bars over all that was seen, the range behind them, its ends as lines."""
    width, most = (distribution.hi - distribution.lo) / BINS, distribution.count
    if distribution.count and width > 0:
        counts = distribution.linear(distribution.lo, width, BINS)
        axes.stairs(counts, distribution.lo + width * np.arange(BINS + 1), baseline=LEAST, fill=True, color="tab:blue")
        most = counts.max()
    elif distribution.count:  # a single value
        axes.vlines(distribution.lo, LEAST, distribution.count, color="tab:blue")
    axes.set_yscale("log")
    axes.set_ylim(LEAST, 2 * max(most, 1))
    axes.axvspan(*ends, color="tab:orange", alpha=0.15, zorder=0)
    for end in ends:
        axes.axvline(end, color="tab:orange", linewidth=1)
    axes.set_xlabel("value")
    axes.set_ylabel("count")
