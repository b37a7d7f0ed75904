"""Calibration: stream the data through the float model and keep mergeable statistics of chosen tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from quark_onnx.core.threads import cores
from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import Crew, Shard, over, shards, tapped
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model
from quark_onnx.numerics.ranges.calibration_statistics import Ends, Statistics, Tally
from quark_onnx.numerics.ranges.deciding_values import deciding_from, settled

Tick = Callable[[int], None]
Row = list[Ends | None]
"""Smallest and largest value of each tensor in a feed; None: it holds none."""

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
    crew: Crew | None = None,
) -> dict[str, Statistics]:
    """Statistics of `tensors` over all feeds; the activations of two feeds are in memory at a time, in each process.

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
        crew: whose processes look at feeds; None: this one does.

    Raises:
        DataError: there are no feeds, or the model fails on one.
    """
    decided = percent or {}
    observed = partial(_observed, model, feeds, moving=moving, counted=counted, crew=crew)
    found = observed(tensors, tick, percent=decided)
    again = [name for name, part in decided.items() if not settled(found[name], part)]
    return found | (observed(again, lambda done: None, percent={}) if again else {})


def _observed(
    model: Model,
    feeds: Iterable[Feed],
    tensors: Sequence[str],
    tick: Tick,
    *,
    moving: float | None,
    percent: Mapping[str, float],
    counted: Counted | None,
    crew: Crew | None,
) -> dict[str, Statistics]:
    some, look = at_least_one(feeds, "ranges of activations"), partial(_Look, tensors, percent, counted)
    parts: list[list[Statistics]] = []
    joined = _Joined([None] * len(tensors), moving, tick)
    if crew is None:
        here = look(tapped(model, tensors, max(1, cores() - WORKERS + 1)))
        for row in _in_order(here, some):
            joined.add(row)
        parts.append(here.counts)
    else:
        for rows, counts in over(crew, model, partial(_looker, tensors, look), shards(some)):
            for row in rows:
                joined.add(row)
            parts.append(counts)
    totals = (Statistics.sum(column) for column in zip(*parts, strict=True))
    ends = (pair or (0.0, 0.0) for pair in joined.ends)
    return {name: replace(total, lo=lo, hi=hi) for name, total, (lo, hi) in zip(tensors, totals, ends, strict=True)}


class _Look:
    """Counts the values of tensors; the ends of each are told feed by feed."""

    def __init__(
        self,
        tensors: Sequence[str],
        percent: Mapping[str, float],
        counted: Counted | None,
        runner: Runner,
    ) -> None:
        self._tensors, self._positions, self._runner = tensors, counted, runner
        self._tallies = [Tally(partial(deciding_from, percent=percent[t]) if t in percent else None) for t in tensors]

    def __call__(self, feed: Feed) -> Row:
        values = feed | dict(zip(self._runner.outputs, self._runner(feed), strict=True))
        if (counted := self._positions) is not None:
            values |= {name: counted.values(name, values[name], feed) for name in self._tensors}
        return [tally.add(values[name]) for name, tally in zip(self._tensors, self._tallies, strict=True)]

    @property
    def counts(self) -> list[Statistics]:
        """Of all feeds so far, without their ends."""
        return [tally.statistics(0.0, 0.0) for tally in self._tallies]


def _looker(
    tensors: Sequence[str], look: Callable[[Runner], _Look], model: Model
) -> Callable[[Shard], tuple[list[Row], list[Statistics]]]:
    """What a process of a crew does."""
    runner = tapped(model, tensors, threads=1)

    def work(shard: Shard) -> tuple[list[Row], list[Statistics]]:
        here = look(runner)
        return [here(feed) for _, feed in shard], here.counts

    return work


@dataclass
class _Joined:
    """The ends of tensors over all feeds so far."""

    ends: Row
    moving: float | None
    tick: Tick
    done: int = 0

    def add(self, row: Row) -> None:
        """One feed more."""
        self.ends = [_joined(before, new, self.moving) for before, new in zip(self.ends, row, strict=True)]
        self.done += 1
        self.tick(self.done)


def _in_order(look: Callable[[Feed], Row], feeds: Iterable[Feed]) -> Iterator[Row]:
    """What `look` finds, in the order of the feeds; it works on several of them at a time."""
    waiting: deque[Future[Row]] = deque()
    workers = min(WORKERS, cores())
    with ThreadPoolExecutor(workers) as executor:
        for feed in feeds:
            waiting.append(executor.submit(look, feed))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _joined(before: Ends | None, new: Ends | None, moving: float | None) -> Ends | None:
    if before is None or new is None:
        return before or new
    if moving is None:
        return min(before[0], new[0]), max(before[1], new[1])
    lo, hi = (e + moving * (x - e) for e, x in zip(before, new, strict=True))
    return lo, hi
