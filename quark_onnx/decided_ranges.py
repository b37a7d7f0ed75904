"""Scales for the places of a job: from one pass of the data, in the types that mixed precision chooses; protected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from quark_onnx.clock import Clock
from quark_onnx.core.plan import Plan
from quark_onnx.decided import Decided
from quark_onnx.engine.calibration_cache import Key, remembered
from quark_onnx.engine.channel_moments import Moments, channel_moments
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.observe import Tick, observe
from quark_onnx.job import Job
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.stages.mixed_precision import Mixed, mix
from quark_onnx.stages.place.idle_operators import tidied
from quark_onnx.stages.protect import Hands, protect, with_own_scales
from quark_onnx.stages.ranges import choose_ranges, decided_by_largest, observed_tensors
from quark_onnx.stages.scale_alignment import align
from quark_onnx.stages.unfit_scales import divided_by, without_unfit
from quark_onnx.stages.weight_rounding import channels_needed, round_weights


def ranged(begun: Decided, clock: Clock, cache: Path | None = None, crew: Crew | None = None) -> Decided:
    """Scales for the sites of the job; with mixed precision, for those sites and types that it chooses; protected.

    crew: shares the passes over the feeds.
    """
    job, feeds = begun.job, begun.feeds
    other = job.placed(job.config.moved) if job.config.include_auto_mp else None
    with clock.stage("calibrate"):
        tick = partial(clock.count, "calibrate", len(feeds))
        statistics = _observed(begun, other, tick, cache, crew)
    moments: Moments = {}
    if job.config.observes and not job.shares:
        with clock.stage("moments"):
            needed = partial(channels_needed, job.prepared, target=job.config.row)
            wanted = [c for sites in (job.sites, other) if sites for c in needed(sites)]
            tick = partial(clock.count, "moments", len(feeds))
            moments = channel_moments(job.prepared, feeds, wanted, tick, begun.counted, crew)
    scaled = partial(_with_scales, job, statistics, moments)
    if other is not None:
        mixed = _mixed(begun, other, clock, scaled)
        return replace(begun, plan=mixed.plan, warnings=(*begun.warnings, *mixed.warnings), mixed=mixed.records)
    with clock.stage("ranges"):
        plan = scaled(job.sites)
    if not plan.nodes or not job.config.protection.on:
        return replace(begun, plan=plan)
    with clock.stage("protect"):
        asked, hands = _hands(job, scaled)
        plan = hands.tidy(plan.without_named(asked)) if asked else plan
        if not feeds or not plan.nodes or job.config.row.fixed_point:
            return replace(begun, plan=plan)
        tuned = job.config.include_fast_ft
        done = protect(job.prepared, plan, feeds, hands, tuned=tuned, counted=begun.counted)
    return replace(begun, plan=done.plan, protected=done.regions)


def _observed(
    begun: Decided, other: Plan | None, tick: Tick, cache: Path | None, crew: Crew | None
) -> dict[str, Statistics]:
    """Statistics for the plan of the job and the other one: in full where a cache keeps them for any range method."""
    job, feeds, counted = begun.job, begun.feeds, begun.counted
    tensors, moving = observed_tensors(job.sites), job.config.moving_average
    percent = {} if cache is not None else _decided_by_largest(job, other)
    look = partial(observe, job.prepared, feeds, tensors, tick, moving, percent, counted, crew)
    if cache is not None and tensors:
        return remembered(cache, Key.of(job.prepared, feeds, moving, counted), tensors, look)
    return look() if tensors else {}


def _decided_by_largest(job: Job, other: Plan | None) -> dict[str, float]:
    """Tensors for which nobody wants to know more than their largest magnitudes; percentages as in `observe`."""
    found = decided_by_largest(job.sites, job.config)
    for plan in (job.sites,) if other is None else (job.sites, other):
        largest, divided = decided_by_largest(plan, job.config), divided_by(job.prepared.graph, plan, job.config.row)
        found = {t: percent for t, percent in found.items() if t in largest and t not in divided}
    return found


def _hands(job: Job, ranged: Callable[[Plan], Plan]) -> tuple[frozenset[str], Hands]:
    """What stays float because the user asks for it, and what protection may do to a plan of the job."""
    graph, config = job.prepared.graph, job.config
    tensors = {value.name for node in graph for value in node.outputs} | {value.name for value in graph.inputs}
    nodes = {node.name for node in (*graph, *job.model.graph)}
    asked, kept = config.protection.named({name for name in tensors | nodes if name} | job.nodes | job.tensors)
    tidy = partial(tidied, graph, target=config.row)

    def own_scales(weights: Collection[str]) -> Plan:
        return tidy(ranged(with_own_scales(job.sites, job.placed_apart(), weights)).without_named(asked))

    return asked, Hands(tidy, own_scales, kept)


def _with_scales(job: Job, statistics: Mapping[str, Statistics], moments: Moments, sites: Plan) -> Plan:
    plan = align(job.prepared, choose_ranges(job.prepared, sites, statistics, job.config), job.config)
    fit = without_unfit(job.prepared, plan, statistics, job.config.row)
    plan = plan if fit is plan else tidied(job.prepared.graph, fit, job.config.row)
    return round_weights(job.prepared, plan, moments, job.config.row, job.config.weight_pairs)


def _mixed(begun: Decided, other: Plan, clock: Clock, ranged: Callable[[Plan], Plan]) -> Mixed:
    """Automatic mixed precision: which layers have the types of the configuration, and which those of `other`."""
    job, config, feeds = begun.job, begun.job.config, begun.feeds
    narrows = config.mixing.narrows(config.activation_type, config.weight_type)
    with clock.stage("mix"):
        tick = partial(clock.progress, "mix")
        return mix(
            job.prepared,
            job.sites,
            other,
            config.mixing,
            feeds,
            ranged,
            job.realize,
            tick,
            narrows=narrows,
            fuse=config.row.on_cpu,
            counted=begun.counted,
        )
