"""Plots of what calibration saw. The only home of matplotlib, which is optional: `pip install 'quark-onnx[plot]'`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.files import new_file
from quark_onnx.numerics.observers import Statistics
from quark_onnx.numerics.spread import Spread

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
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"a plot cannot be written to {target.name!r}: give a name that ends in {', '.join(SUFFIXES)}"
        )
    figure = _figure()
    spread = Spread.of(statistics)
    outside = part_outside(spread, ends)
    axes = figure.add_subplot()
    _draw(axes, spread, ends)
    axes.set_title(f"{title}\n{ends[0]:.4g} … {ends[1]:.4g}, {outside:.2%} outside", fontsize="medium")
    with new_file(target) as file:
        figure.savefig(file, dpi=120)
    return outside


def check_installed() -> None:
    """Raises ConfigError where matplotlib is missing."""
    _figure()


def part_outside(spread: Spread, ends: tuple[float, float]) -> float:
    """The part of the values that is smaller than lo or larger than hi, by more than rounding; 0 of nothing."""
    slack = 1e-6 * (ends[1] - ends[0])
    inside = spread.below(ends[1] + slack, "right") - spread.below(ends[0] - slack)
    return 1 - float(inside) / spread.count if spread.count else 0.0


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib, which is not installed: pip install 'quark-onnx[plot]'") from None
    return Figure(figsize=SIZE, layout="constrained")


def _draw(axes: Any, spread: Spread, ends: tuple[float, float]) -> None:
    """Bars over all that was seen, the range behind them, its ends as lines."""
    width, most = (spread.hi - spread.lo) / BINS, spread.count
    if spread.count and width > 0:
        counts = spread.linear(spread.lo, width, BINS)
        axes.stairs(counts, spread.lo + width * np.arange(BINS + 1), baseline=LEAST, fill=True, color="tab:blue")
        most = counts.max()
    elif spread.count:  # a single value
        axes.vlines(spread.lo, LEAST, spread.count, color="tab:blue")
    axes.set_yscale("log")
    axes.set_ylim(LEAST, 2 * max(most, 1))
    axes.axvspan(*ends, color="tab:orange", alpha=0.15, zorder=0)
    for end in ends:
        axes.axvline(end, color="tab:orange", linewidth=1)
    axes.set_xlabel("value")
    axes.set_ylabel("count")
