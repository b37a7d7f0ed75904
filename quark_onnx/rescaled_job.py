"""The job with channels of its float model evened out: between layers, and between activations and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.clock import Clock
from quark_onnx.core.records import SmoothRecord
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.kept_feeds import Kept, holding, samples_in, telling
from quark_onnx.engine.position_rows import position_rows
from quark_onnx.engine.value_shapes import value_shapes
from quark_onnx.job import Job
from quark_onnx.stages.equalize import equalize, tensors_needed
from quark_onnx.stages.smooth import How, channels_needed, has_sites, left_alone, places, smooth

Arrays = Mapping[str, NDArray[Any]]

MAX_SWEEPS = 20
"""Sweeps of equalization when it is to go on until nothing moves."""

JUDGES = 8
"""Samples below which nothing is smoothed that has to gain by it: some judge what the others teach."""


def rescaled(
    job: Job, feeds: Kept, clock: Clock, counted: Counted | None = None, crew: Crew | None = None
) -> tuple[Job, tuple[SmoothRecord, ...]]:
    """Both, one after the other, and what became of each site of the second.

    counted: which positions of the feeds count; None: all. crew: shares the passes over the feeds.
    """
    if job.config.conversion is not None:
        return job, ()
    return _smoothed(job, _equalized(job, feeds, clock, crew), holding(feeds), clock, counted, crew)


def _equalized(job: Job, feeds: Sequence[Feed], clock: Clock, crew: Crew | None) -> Job:
    """Cross-layer equalization of the float model, with the extremes in front of clips from one pass of the data.

    With a scale per channel there is nothing to even out, and the changed activations would cost accuracy.
    """
    if not job.config.include_cle or job.config.per_channel:
        return job
    absorb, steps = bool(job.config.option("HighBiasAbsorption")), job.config.option("CLESteps")
    with clock.stage("equalize"):
        needed = tensors_needed(job.prepared, absorb=absorb)
        tick = partial(clock.count, "equalize", len(feeds))
        extremes = channel_extremes(job.prepared, feeds, needed, tick, crew)
        found = equalize(job.prepared, extremes, sweeps=MAX_SWEEPS if steps < 0 else steps, absorb=absorb)
        return job.rescaled(found.factors, found.shifts)


def _smoothed(
    plain: Job, job: Job, feeds: Sequence[Feed], clock: Clock, counted: Counted | None, crew: Crew | None
) -> tuple[Job, tuple[SmoothRecord, ...]]:
    """SmoothQuant of an equalized job, and what became of each site.

    Args:
        plain: the job before it was equalized: a plan holds all that it was multiplied by since.
    """
    how, config = job.config.smoothing, job.config
    if not how.on or not config.observes or config.row.pow2 or (how.judged and not config.row.runtime):
        return job, ()
    if not has_sites(job.prepared):
        return job, ()
    with clock.stage("smooth"):
        asked = How(how.alpha, how.judged, products=not config.row.fixed_point)
        found = places(job.prepared, job.sites, value_shapes(job.prepared, feeds[telling(feeds)[0]]), asked)
        needed = channels_needed(found)
        few = how.judged and (len(feeds) < 2 or sum(map(samples_in, feeds)) < JUDGES)
        if few or not needed:
            return job, left_alone(found, f"too few samples to judge by: it takes {JUDGES} in two feeds")
        tick, counts = partial(clock.count, "smooth", len(feeds)), job.counted(counted, feeds)
        seen = position_rows(job.prepared, feeds, needed, tick, counts, crew)
        done = smooth(job.sites, found, seen, asked)
        factors, shifts = _together(job.sites.factors, job.sites.shifts, done.factors)
        return plain.rescaled(factors, shifts, done.smoothed), done.records


def _together(factors: Arrays, shifts: Arrays, further: Arrays) -> tuple[Arrays, Arrays]:
    """(w · f + t) · g = w · (f · g) + t · g"""
    both = {name: np.multiply(factors.get(name, np.float32(1)), array) for name, array in further.items()}
    moved = {name: np.multiply(shift, further.get(name, np.float32(1))) for name, shift in shifts.items()}
    return {**factors, **both}, moved
