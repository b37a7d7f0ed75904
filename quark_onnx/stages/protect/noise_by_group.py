"""How much noise groups of quantizers alone make at the outputs, found by halving.

With everything else in float the noises of groups add up, as long as they are small beside the signal. A set of groups
that makes little of it together holds none that makes much: so the groups, in the order of the graph, are halved where
there is much, the noisiest part first, until single groups are left, or parts that need not be told apart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from quark_onnx.core.threads import cores
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted, counted_pairs
from quark_onnx.engine.runner import Arrays, Runner
from quark_onnx.graph import Model, io
from quark_onnx.graph.view import shape
from quark_onnx.numerics.output_measures import OutputMeasure

HALVINGS = 24
"""At most. Parts that are not told apart by then are taken as they are."""

WORKERS = 2
"""Samples that run at a time, on a thread each."""

Part = tuple[str, ...]
Noise = tuple[float, str]
"""dB of the output that is worth least, and its name."""


Judge = Callable[[Collection[str], "int | None"], Noise]
"""Of a quantized model without the quantizers of some tensors, on so many samples; None: on all."""


class Outputs:
    """What the float model makes of some samples, to judge quantized ones by, at positions that count (None: all)."""

    def __init__(self, model: Model, feeds: Sequence[Feed], counted: Counted | None = None) -> None:
        self.feeds, self._counted = feeds, counted
        self._declared = {value.name or "": shape(value) for value in model.graph.outputs}
        run = Runner(model, list(self._declared), threads=1)
        self._workers = 1 if io.is_heavy(model) else min(WORKERS, cores())  # each holds weights as floats
        self._expected = self._together(run, feeds)

    def worth(self, quantized: Callable[[Feed], Arrays], samples: int | None = None) -> Noise:
        """Of the output of a quantized model that is worth least, on so many samples; None: on all.

        Infinite where nothing can be measured: there is nothing to protect.
        """
        measures = {name: OutputMeasure(dims) for name, dims in self._declared.items()}
        answers = self._together(quantized, self.feeds[:samples])
        for feed, expected, found in zip(self.feeds, self._expected, answers, strict=False):
            for (name, measure), x, y in zip(measures.items(), expected, found, strict=True):
                for pair in counted_pairs(self._counted, name, x, y, feed):
                    measure.add(*pair)
        worth = {name: measure.measured.db for name, measure in measures.items()}
        known = {name: db for name, db in worth.items() if db is not None}
        name = min(known, key=lambda name: known[name], default="")
        return known.get(name, math.inf), name

    def _together(self, run: Callable[[Feed], Arrays], feeds: Sequence[Feed]) -> list[Arrays]:
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(run, feeds))


def noisy_parts(
    alone: Callable[[set[str]], Noise],
    groups: Mapping[str, Sequence[str]],
    limit: float,
    small: Callable[[Part], bool],
) -> dict[Part, Noise]:
    """Groups, or parts of neighbours that are `small`, that alone leave the worst output less than `limit` dB.

    Args:
        alone: what the worst output is worth with the quantizers of these tensors only.
        groups: tensors of each group that may be at fault, in the order of the graph.
        small: whether a part need not be told apart.
    """

    def measured(part: Part) -> tuple[Noise, Part]:
        return alone({tensor for name in part for tensor in groups[name]}), part

    found: dict[Part, Noise] = {}
    waiting = [measured(tuple(groups))] if groups else []
    for _ in range(HALVINGS):
        while waiting and (len(waiting[0][1]) == 1 or small(waiting[0][1])):
            noise, part = heapq.heappop(waiting)
            found[part] = noise
        if not waiting or waiting[0][0][0] >= limit:
            break
        _, part = heapq.heappop(waiting)
        middle = len(part) // 2
        for half in (part[:middle], part[middle:]):
            heapq.heappush(waiting, measured(half))
    return {part: noise for part, noise in [*found.items(), *((p, n) for n, p in waiting)] if noise[0] < limit}
