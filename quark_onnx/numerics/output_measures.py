"""What is measured of an output of a quantized model: the one judge, for reports, budgets, choices and advice.

Its ratio as a whole and that of its worst slice (`channel_slices`), or, where it is no float, its share of equal values
(`output_pairs`); and how far its classes agree (`class_agreement`). What it is worth is `Measured.db`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quark_onnx.core.records import Measured
from quark_onnx.numerics.channel_slices import MOST, ChannelSlices, channel_axis
from quark_onnx.numerics.class_agreement import ClassAgreement
from quark_onnx.numerics.metrics import Sqnr, finite
from quark_onnx.numerics.output_pairs import Pair, paired


@dataclass
class OutputMeasure:
    """Sums over as many answers as are added; `measured` is what they say.

    declared: dimensions of the output as the model names them, None where it leaves them open.
    """

    declared: Sequence[int | None] | None = None
    exact: bool = False
    values: int = 0
    ratio: Sqnr = field(default_factory=Sqnr)
    axis: int | None = None
    slices: ChannelSlices | None = None
    classes: ClassAgreement = field(default_factory=ClassAgreement)
    infinite: int = 0
    lost: int = 0
    shapes: tuple[str, str] | None = None

    def add(self, reference: object, other: object) -> None:
        """Count what the two models make of one sample: arrays, or sequences and maps of them."""
        for pair in paired(reference, other):
            if pair.shapes is not None and self.shapes is None:
                self.shapes = (str(list(pair.shapes[0])), str(list(pair.shapes[1])))
            self._count(pair)

    def _count(self, pair: Pair) -> None:
        self.exact |= pair.exact
        x, y, broken = finite(pair.x, pair.y)
        known, kept = np.isfinite(pair.x), np.isfinite(pair.y)
        self.infinite += int(np.count_nonzero(~known))
        self.lost += int(np.count_nonzero(known & ~kept))
        self.values += int(np.count_nonzero(known))
        self.ratio.count(x, y, broken)
        if pair.exact or pair.inside or pair.shapes is not None or not x.size:
            return
        channels = channel_axis(x.shape, self.declared)
        self.classes.add(pair.x, pair.y, channels)
        if channels is not None and 2 <= x.shape[channels] <= MOST:
            self._slice(x, y, channels)

    def _slice(self, x: Any, y: Any, channels: int) -> None:
        """Slices are those of the first sample's axis; where another one has a different axis, they are no channels."""
        if self.slices is None and self.axis is None:
            self.axis, self.slices = channels, ChannelSlices(channels, x.shape[channels])
        if self.slices is not None and (channels != self.axis or x.shape[channels] != len(self.slices.signal)):
            self.slices = None
        if self.slices is not None:
            self.slices.add(x, y)

    @property
    def measured(self) -> Measured:
        """All of it."""
        if not self.values:
            return Measured(infinite=self.infinite, lost=self.lost, shapes=self.shapes)
        signal, noise = self.ratio.signal, self.ratio.noise
        return Measured(
            values=self.values,
            sqnr=None if self.exact else self.ratio.db,
            equal=(signal - noise) / signal if self.exact else None,
            worst=None if self.slices is None else self.slices.worst,
            agreement=self.classes.share,
            kl=self.classes.kl,
            infinite=self.infinite,
            lost=self.lost,
            shapes=self.shapes,
        )

    @property
    def value(self) -> float:
        """What the output is worth in dB; NaN where nothing was measured."""
        ratio = self.measured.db
        return math.nan if ratio is None else ratio
