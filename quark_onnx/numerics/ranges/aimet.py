"""AIMET's quantization schemes as range methods: `tf`, `tf_enhanced` and `tf_percentile` of aimet-onnx 2.42.

Each returns (lo, hi) such that `qparams` gives the scheme's own scale and zero point.
With the data in one batch they are AIMET's encodings. We depart from AIMET where it depends on accidents:

* Its histogram is laid out by the first batch, drops what later ones have outside three times that range, and weighs
  batches alike whatever their size. Ours is laid out by the range of all data, and every value counts once.
* It widens ranges below 0.01 to 0.01, so that data within 1e-5 gets a handful of codes. We widen only as long as the
  finest candidate still resolves the data, and never raise a scale to 1.2e-7.
* It measures clipping no further than its histogram reaches, so that for a constant 6 it may take scales that end far
  below 6. We measure it as far as it is.
* Data that are all zero get an empty range here (scale 1), not AIMET's ±1.

Measured on 19 distributions (`tests/conformance/test_peers.py`): from the data themselves `tf` and `tf_percentile` are
AIMET's to float32 rounding, and so is `tf_enhanced` with 8 bits and more; with fewer bits ends of candidates meet edges
of bins, where rounding decides, and one choice in a hundred is another one of nearly the same cost. From a histogram
that is 0.8 % fine, near-ties fall the other way more often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.ranges.distribution import Distribution

BINS = 512
"""Bins of the histogram over the range seen; it extends as far again on both sides."""

GAMMA = 3.0
"""What an error from clipping costs, next to one from rounding."""

STEPS = 16
"""`tf_enhanced` tries asymmetric scales of 1/16, 2/16 … 17/16 of min-max."""

OFFSETS = 20
"""… each with 21 zero points, evenly spread over the codes."""

HUNDREDTHS = 101
"""… and symmetric scales of 0.01, 0.02 … 1.01 of min-max."""

NARROW = 0.01
"""AIMET takes no narrower range."""

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ends = tuple[float, float]


def tf(seen: Distribution, format: Format) -> Ends:
    """From the smallest to the largest value, 0 included, moved to the grid ("min_max", "post_training_tf").

    A symmetric 2-bit grid takes a half of the largest |x| as its scale: codes −2..1 then clip the positive end.
    """
    return _min_max(min(seen.lo, 0.0), max(seen.hi, 0.0), format)


def tf_enhanced(seen: Distribution, format: Format) -> Ends:
    """The candidate of least rounding error plus three times the clipping error (AIMET's SQNR analyzer).

    Errors are those of the middles of a histogram's bins; clipping is measured to the middle of the last bin inside.
    The first of equally good candidates is taken.
    """
    if seen.lo == seen.hi == 0.0:
        return 0.0, 0.0
    histogram = _Histogram.of(seen)
    scales, offsets = _candidates(*histogram.seen, format)
    best = int(np.argmin(histogram.costs(scales, offsets, (1 << format.bits) - 1)))
    return _on_grid(float(scales[best]), float(offsets[best]), format)


def tf_percentile(seen: Distribution, format: Format, percent: float) -> Ends:
    """The bins that leave out (100 − percent) % at either end ("post_training_percentile"); then as `tf`.

    The lower end is the left edge of the first bin by whose end more than that part was seen, the upper one the right
    edge of the last bin by whose end less than `percent` was. 100 is everything from the first bin to the last.
    """
    if seen.lo == seen.hi == 0.0:
        return 0.0, 0.0
    histogram = _Histogram.of(seen)
    lo, hi = histogram.percentile(percent) if percent < 100 else histogram.seen
    return _min_max(min(lo, 0.0), max(hi, 0.0), format)


def _min_max(lo: float, hi: float, format: Format) -> Ends:
    steps = format.hi - format.lo
    if format.symmetric and format.bits == 2 and steps == 3 and not (format.one_sided and lo >= 0):
        return _on_grid(max(-lo, hi) / 2, format.lo - format.middle, format)
    if format.symmetric or lo == hi:
        return lo, hi
    scale = (hi - lo) / steps
    return _on_grid(scale, float(_half_away(lo / scale)), format)


def _on_grid(scale: float, offset: float, format: Format) -> Ends:
    """The ends of the grid; `offset` is the lowest code with the zero point taken off, as AIMET counts."""
    return scale * offset, scale * (offset + format.hi - format.lo)


def _candidates(lo: float, hi: float, format: Format) -> tuple[Floats, Floats]:
    """Scales and offsets that `tf_enhanced` chooses from, in its order.

    In float32 as AIMET does it, because offsets often lie half-way between two integers (−7.5 for data within ±1), and
    in parts of a power of two near the range, so that nothing overflows.
    """
    unit = 2.0 ** math.frexp(hi - lo)[1]
    least, most = np.float32(lo / unit), np.float32(hi / unit)
    choose = _symmetric if format.symmetric else _asymmetric
    scales, offsets = choose(least, most, format)
    return scales.astype(np.float64) * unit, offsets.astype(np.float64)


def _symmetric(lo: np.float32, hi: np.float32, format: Format) -> tuple[Singles, Singles]:
    steps = np.float32(format.hi - format.lo)
    one_sided = format.one_sided and lo == 0
    widest = hi / steps if one_sided else 2 * max(-lo, hi) / steps
    factors = np.cumsum(np.full(HUNDREDTHS, 0.01, np.float32), dtype=np.float32)
    scales = widest * factors[factors <= HUNDREDTHS / 100]
    return scales, np.full(scales.size, 0 if one_sided else format.lo - format.middle, np.float32)


def _asymmetric(lo: np.float32, hi: np.float32, format: Format) -> tuple[Singles, Singles]:
    steps = np.float32(format.hi - format.lo)
    widest = (hi - lo) / steps
    lowest = _half_away(lo / widest)
    lo, hi = widest * lowest, widest * lowest + widest * steps
    scales = np.repeat(widest * np.arange(1, STEPS + 2, dtype=np.float32) / STEPS, OFFSETS + 1)
    offsets = np.trunc(-float(steps) + float(steps) / OFFSETS * np.arange(OFFSETS + 1))
    starts = scales * np.tile(offsets.astype(np.float32), STEPS + 1)
    ends = starts + scales * steps
    kept = (starts >= lo) | (ends <= hi)
    starts, ends = np.maximum(starts[kept], lo), np.minimum(ends[kept], hi)
    wide = ends - starts > (hi - lo) * 1e-6  # where a start meets an end nothing is left but rounding errors
    scales = (ends[wide] - starts[wide]) / steps
    return np.append(scales, widest), np.append(_half_away(starts[wide] / scales), lowest)


@dataclass(frozen=True)
class _Histogram:
    """Values in even bins: bin k is [(first + k)·width, (first + k + 1)·width); `parts` sum to 1."""

    first: int
    width: float
    parts: Floats

    @classmethod
    def of(cls, seen: Distribution) -> _Histogram:
        """AIMET's layout for one batch: 512 bins over the range, an edge at 0, and one bin more where ends meet it.

        The width and the first edge are rounded as AIMET does it, because for data from 0 on an edge meets the largest
        value, and rounding decides on which side it lies.
        """
        lo, hi = seen.lo, seen.hi
        if lo == hi:
            hi = lo + max(NARROW if abs(lo) > NARROW / STEPS else abs(lo), abs(lo) * 2.0**-16)
        middle, half = (lo + hi) / 2, _single(1.5 * (hi - lo))
        start, end = _single(middle - half), _single(middle + half)
        width = (end - start) / (3 * BINS)
        origin = math.floor(start / width)
        below, above = (math.floor(x / width - origin) for x in (seen.lo, seen.hi))
        edge = (origin + below - 1e-9) * width  # what lies on an edge stays above it, whatever rounding does
        counts = seen.linear(edge, width, above - below + 1)
        return cls(origin + below, width, counts / counts.sum())

    @property
    def edges(self) -> Floats:
        """(bins + 1,)"""
        return self.width * (self.first + np.arange(self.parts.size + 1.0))

    @property
    def seen(self) -> Ends:
        """The left edges of the first and the last bin, with 0 between them, not narrower than AIMET's least."""
        lo, hi = min(self.width * self.first, 0.0), max(self.width * (self.first + self.parts.size - 1), 0.0)
        return lo, max(hi, lo + NARROW) if hi - lo > NARROW / STEPS else hi

    def costs(self, scales: Floats, offsets: Floats, steps: int) -> Floats:
        """(k,) rounding error² of the bins inside a grid, plus three times the clipping error² of the others."""
        filled = np.flatnonzero(self.parts)
        bins, parts = self.first + filled, self.parts[filled]
        middles = (bins + 0.5) * self.width
        ends = scales * offsets, scales * (offsets + steps)
        low, high = (np.floor(end[:, None] / self.width) for end in ends)
        codes = middles / scales[:, None]
        rounding = (codes - np.rint(codes)) * scales[:, None]
        clipping = middles - (np.clip(bins, low, high) + 0.5) * self.width
        inside = (low <= bins) & (bins < high)
        return np.asarray(product(np.where(inside, rounding**2, GAMMA * clipping**2), parts))

    def percentile(self, percent: float) -> Ends:
        """The edges that leave out (100 − percent) % at either end."""
        seen = np.cumsum(self.parts)
        part = np.float32(percent) / np.float32(100)  # AIMET's threshold: of 5,000 values, 5 are less than 0.1 %
        lower = int(np.argmax(seen >= np.float32(1) - part))
        upper = np.flatnonzero(seen < part)
        last = int(upper[-1]) + 1 if upper.size else 0
        edges = self.edges
        return float(edges[lower]), float(edges[max(last, lower + 1)])


def _single(x: float) -> float:
    """x rounded to the 24 bits of a float32, at any magnitude."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(math.ldexp(mantissa, 24)), exponent - 24)


def _half_away(x: Any) -> Any:
    return np.copysign(np.floor(np.abs(x) + np.float32(0.5)), x)
