"""The outcome in words: why this point, what stood in the way, what would be next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.budget_excess import excess
from quark_onnx.engine.kernel_times import kernel_times
from quark_onnx.engine.output_judge import run_of
from quark_onnx.numerics.search.paired_bootstrap import standard_error
from quark_onnx.optimize.records import FLOAT, LayerOption, LayerRow, Optimized, Point
from quark_onnx.optimize.trials import TIMED, Task, in_milliseconds
from quark_onnx.result import Result

if TYPE_CHECKING:
    from quark_onnx.optimize.search import Search

SLOWER = 1.1
"""Of the float model's time: what is told."""

NAMED = 3
"""Layers that are named."""

KILO = 1000
SMALLEST = {"size": "the smallest", "latency": "the fastest", "balanced": "the best trade of size and time"}


def reason(search: Search, best: Point, *, met: bool) -> str:
    """Why this point was chosen."""
    count = len([point for point in search.trials.points if not point.error])
    if search.knee:
        return f"no budget was given: the knee of {count} points, from where on less size or time costs much accuracy"
    if met and search.objective == "size" and any(p.good and p.size < best.size for p in search.trials.points):
        return (
            f"of {count} points about the smallest within the budget: those that are a little smaller take much longer"
        )
    if met:
        return f"{SMALLEST[search.objective]} of {count} points that is within the budget"
    return f"none of {count} points is within the budget; this one is nearest to it"


def blame(found: Optimized) -> tuple[str, ...]:
    """What stood in the way."""
    said = list(found.point.over)
    damages = [(option.damage, row) for row in found.rows if (option := _chosen(row)) is not None]
    total = sum(damage for damage, _ in damages)
    worst = sorted(damages, key=lambda one: -one[0])[:NAMED]
    if total > 0:
        names = ", ".join(f"{row.nodes[0]!r} ({damage / total:.0%})" for damage, row in worst if damage > 0)
        said.append(f"of what the table says of this point most is done by {names}")
    if found.rows and all(row.chosen == FLOAT for row in found.rows):
        said.append("all layers are float in it: the budget asks for more than the float model keeps here")
    return tuple(said)


def _chosen(row: LayerRow) -> LayerOption | None:
    return next((option for option in row.options if option.choice == row.chosen), None)


def advice(found: Optimized) -> tuple[str, ...]:
    """The neighbours of the chosen point on the front, and the budget that asks for each."""
    front = list(found.front)
    if found.point not in front:
        return ()
    at = front.index(found.point)
    near = [(f"{one.size / KILO:.0f} kB", one) for one in (*front[max(0, at - 1) : at], *front[at + 1 : at + 2])]
    return tuple(f"{size}, {_worth(one)}: {_asked(found, one)}" for size, one in near)


def _worth(point: Point) -> str:
    told = [f"KL {point.kl:.3g}"] if point.kl is not None else []
    told += [f"{point.sqnr:.1f} dB"] if point.sqnr is not None and not told else []
    told += [f"drop {point.drop:.3g}"] if point.drop is not None else []
    return ", ".join(told) or "not measured"


def _asked(found: Optimized, point: Point) -> str:
    if "max_drop" in found.budget and point.drop is not None:
        return f"--max-drop {max(0.0, point.drop):.3g}"
    if found.measure == "kl" and point.kl is not None:
        return f"--max-kl {point.kl * 1.01:.3g}"
    return f"--min-sqnr {(point.sqnr or 0.0) - 0.05:.1f}"


def doubts(best: Point, task: Task, kls: Sequence[float]) -> tuple[str, ...]:
    """What the judges cannot tell.

    kls: of the samples that judge, one by one.
    """
    return (*_uncertain(best, task, kls), *_chance(best, task))


def departing(best: Point, task: Task, result: Result) -> tuple[str, ...]:
    """That a model which is within the budget as it is written is not where it runs: kernels round otherwise.

    The score of the evaluator is that of what runs in any case.
    """
    if task.latency is None or not best.good:
        return ()
    outputs = task.judge.measured(run_of(result.evidence.quantized)).outputs
    found = excess(replace(task.budget, max_drop=None), outputs)
    told = f"within the budget as it is written, and not as it runs on this processor: {'; '.join(found)}"
    return (told,) if found else ()


def slower(best: Point, task: Task, result: Result, target: Target) -> tuple[str, ...]:
    """That it runs slower than the float model, and what helps."""
    if best.latency is None or best.latency[1] <= SLOWER * best.latency[0]:
        return ()
    told = (
        f"on this machine its kernels take {best.latency[1] / best.latency[0]:.2g} times as long as the float model's"
    )
    if not target.on_cpu:
        return (told,)
    timed = kernel_times(result.evidence.quantized, task.judge.feeds[:TIMED], fuse=False)
    without = in_milliseconds(timed) / best.latency[0]
    if without < best.latency[1] / best.latency[0]:
        told += (
            f"; {without:.2g} times with the session entry session.disable_quant_qdq=1, by which onnxruntime makes "
            "floats of integer weights once, when it loads them, and not in every run"
        )
    return (f"{told}; the objectives balanced and latency keep integer kernels",)


def _uncertain(best: Point, task: Task, kls: Sequence[float]) -> tuple[str, ...]:
    allowed = task.budget.max_kl
    if allowed is None or best.kl is None or len(kls) < 2:
        return ()
    noise = standard_error(np.asarray(kls, np.float64))
    if abs(best.kl - allowed) >= noise:
        return ()
    told = f"a KL of {best.kl:.3g} on {len(kls)} samples is uncertain by ±{noise:.2g}"
    return (f"{told}: other samples may be above the {allowed:g} that are allowed",)


def _chance(best: Point, task: Task) -> tuple[str, ...]:
    if task.evaluate is None or best.drop is None or task.before is None:
        return ()
    if best.noise is None:
        return (
            "the evaluator gives one number, so how much of a drop is chance is not known; let it return one number "
            "for each sample",
        )
    allowed = task.budget.drop_from(task.before.value)
    if allowed is not None and abs(best.drop - allowed) < best.noise:
        return (f"the drop of {best.drop:.3g} is within its chance (±{best.noise:.2g}) of the {allowed:.3g} allowed",)
    return ()
