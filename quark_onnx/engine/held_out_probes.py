"""The samples that teach, and those that prove what was learned.

Figures of samples that ranges and weights were chosen on flatter the model. Of N ≥ 20 samples min(16, N // 5) are held
out: first those that lie beyond the limit which the user set, then feeds evenly spaced over the rest, as data are often
sorted by class. Feeds stay whole: whether axis 0 of an array is a batch or time is not known; those with an
empty array teach, where there are others. With fewer samples all of
them teach, and the first ones prove.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quark_onnx.engine.array_likes import Array
from quark_onnx.engine.calibration_data import CalibrationData, Feed
from quark_onnx.engine.counted_positions import Counted, without_padding
from quark_onnx.engine.kept_feeds import Kept, keep, samples_in, telling
from quark_onnx.engine.labels import labelled, labels_spec
from quark_onnx.engine.runner import fit
from quark_onnx.graph import Model, io
from quark_onnx.graph.mask_inputs import MaskInput

PROBES = 16
"""Samples that prove, where there are enough; feeds, where those that teach must do."""

LEAST = 20
"""Samples from which on some are held out."""

FEWEST = 4
"""Probes of the largest models; heavy ones have fewer, the more weights they have."""

PART = 5
"""One of so many samples is held out, and one of so many feeds at most."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Feeds of a model.

    taught    all that anything is learned of
    probes    what proves the result, as it was given: models will meet padding
    held_out  whether nothing was learned of the probes
    counted   which positions of them are judged; None: all
    """

    taught: Kept
    probes: Kept
    held_out: bool
    counted: Counted | None = None


def most_probes(model: Model) -> int:
    """How many of them a proof runs on: three sessions go over each, which a model of 600 MB would spend a third of the
    whole call on.
    """
    return max(FEWEST, PROBES * io.FILES_ABOVE // max(io.weight_bytes(model), io.FILES_ABOVE))


def read(data: CalibrationData, model: Model, mask: MaskInput | None = None, labels: Array | None = None) -> Samples:
    """All feeds, in the float types of the model; nothing is to be learned of positions that do not count.

    Args:
        mask: what of a feed says which positions count; None: all do.
        labels: a row for each sample, which feeds then hold, too.

    Raises:
        DataError: a sample does not fit, there is none, or there are not as many labels.
    """
    rows: list[int] = []
    beyond: list[bool] = []

    def noted() -> Iterator[Feed]:
        for feed, spare in data.with_spare(PROBES):
            rows.append(samples_in(feed))
            beyond.append(spare)
            yield fit(feed, model)

    feeds, inputs = keep(noted()), data.inputs
    if labels is not None:
        feeds, inputs = labelled(feeds, rows, labels, limited=data.limited), (*inputs, labels_spec(labels))
    first = len(beyond) - sum(beyond)
    usable = [i for i in telling(feeds) if i < first]
    chosen = held_out(rows, first, usable if 2 * len(usable) > first else None)
    taught = feeds.at([i for i in range(first) if i not in chosen])
    probes = feeds.at(chosen) if chosen else taught[:PROBES]
    counted = None
    if mask is not None:
        taught, counted = without_padding(model, inputs, feeds, taught, mask)
    return Samples(taught, probes, bool(chosen), counted)


def held_out(rows: Sequence[int], first: int, usable: Sequence[int] | None = None, most: int = PROBES) -> list[int]:
    """Indices of the feeds that are held out, in order; none of too few.

    Args:
        rows: samples in each feed.
        first: how many feeds lie within the limit; the others are there to be held out.
        usable: of the first ones, those that may be; None: all.
        most: samples that are wanted.
    """
    if sum(rows) < LEAST:
        return []
    wanted = min(most, sum(rows) // PART)
    spare: list[int] = []
    for index in range(first, len(rows)):
        if sum(rows[i] for i in spare) < most:
            spare.append(index)
    lacking = wanted - sum(rows[i] for i in spare)
    if lacking <= 0:
        return spare
    count = min(first // PART, math.ceil(lacking * first / sum(rows[:first])))
    within = range(first) if usable is None else usable
    return [within[i] for i in spaced(len(within), count)] + spare


def spaced(size: int, count: int) -> list[int]:
    """So many indices of `size`, evenly spaced."""
    return [(2 * k + 1) * size // (2 * count) for k in range(count)]
