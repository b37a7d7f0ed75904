"""Calibration: stream the data through the float model and keep mergeable statistics of chosen tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from quark_onnx.core.threads import cores
from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.numerics.ranges.calibration_statistics import Ends, Statistics, Tally
from quark_onnx.numerics.ranges.deciding_values import deciding_from, settled

Tick = Callable[[int], None]
Look = Callable[[Feed], list[Ends | None]]

WORKERS = 2
"""Feeds that are run and counted at a time. Each brings a thread of its own, so onnxruntime gets one less than there
are cores: counting is work for one core, and with onnxruntime's threads spinning on all of them it would have none."""


def observe(
    model: Model,
    feeds: Iterable[Feed],
    tensors: Sequence[str],
    tick: Tick,
    moving: float | None = None,
    percent: Mapping[str, float] | None = None,
    counted: Counted | None = None,
) -> dict[str, Statistics]:
    """Statistics of `tensors` over all feeds; the activations of two feeds are in memory at a time.

    Args:
        feeds: can be read again where `percent` is given.
        tick: called with the number of feeds done.
        moving: lo and hi are not the extremes but their exponential moving average over the feeds, e ← e + c·(x − e)
            with this c, beginning with those of the first feed. It depends on the order of the feeds and on the size of
            their batches, and is nothing that can be added to other statistics. The histogram is of all values still.
        percent: tensors whose range will be that which keeps so much of the values, or, with 100, reaches from lo to
            hi: values that do not decide it count as 0, see `Statistics.told`. A tensor for which that goes wrong is
            observed once more, in full: the range is the same, to the bit.
        counted: which positions count; None: all.

    Raises:
        DataError: there are no feeds, or the model fails on one.
    """
    decided = percent or {}
    found = _observed(model, feeds, tensors, tick, moving, decided, counted)
    again = [name for name, part in decided.items() if not settled(found[name], part)]
    return found | (_observed(model, feeds, again, lambda done: None, moving, {}, counted) if again else {})


def _observed(
    model: Model,
    feeds: Iterable[Feed],
    tensors: Sequence[str],
    tick: Tick,
    moving: float | None,
    percent: Mapping[str, float],
    counted: Counted | None,
) -> dict[str, Statistics]:
    inputs = {value.name for value in model.graph.inputs}
    fetched = [name for name in tensors if name not in inputs]
    runner = Runner(io.with_outputs(model, fetched), fetched or None, threads=_threads())
    tallies = [Tally(partial(deciding_from, percent=percent[t]) if t in percent else None) for t in tensors]
    ends: list[Ends | None] = [None] * len(tensors)

    def look(feed: Feed) -> list[Ends | None]:
        values = feed | dict(zip(runner.outputs, runner(feed), strict=True))
        if counted is not None:
            values |= {name: counted.values(name, values[name], feed) for name in tensors}
        return [tally.add(values[name]) for name, tally in zip(tensors, tallies, strict=True)]

    for done, found in enumerate(_in_order(look, at_least_one(feeds, "ranges of activations")), start=1):
        ends = [_joined(before, new, moving) for before, new in zip(ends, found, strict=True)]
        tick(done)
    statistics = (tally.statistics(*(pair or (0.0, 0.0))) for tally, pair in zip(tallies, ends, strict=True))
    return dict(zip(tensors, statistics, strict=True))


def _in_order(look: Look, feeds: Iterable[Feed]) -> Iterator[list[Ends | None]]:
    """What `look` finds, in the order of the feeds; it works on several of them at a time."""
    waiting: deque[Future[list[Ends | None]]] = deque()
    workers = min(WORKERS, cores())
    with ThreadPoolExecutor(workers) as executor:
        for feed in feeds:
            waiting.append(executor.submit(look, feed))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _threads() -> int:
    return max(1, cores() - WORKERS + 1)


def _joined(before: Ends | None, new: Ends | None, moving: float | None) -> Ends | None:
    if before is None or new is None:
        return before or new
    if moving is None:
        return min(before[0], new[0]), max(before[1], new[1])
    lo, hi = (e + moving * (x - e) for e, x in zip(before, new, strict=True))
    return lo, hi
