"""The judge of quantized models: their outputs on some samples against those of the float model, which runs once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from quark_onnx.core.records import Comparison
from quark_onnx.core.threads import cores
from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.kept_feeds import keep, quarter_of_memory
from quark_onnx.engine.output_sums import Dims, M, OutputSums, comparison
from quark_onnx.engine.runner import Arrays, Runner, fit
from quark_onnx.graph import Model, io
from quark_onnx.graph.view import output_names
from quark_onnx.numerics.output_measures import OutputMeasure
from quark_onnx.numerics.parallel_blocks import in_order

WORKERS = 2
"""Samples that run at a time, on a thread each."""

Run = Callable[[Feed], Arrays]
"""All outputs of a quantized model, in the order of the float one; several threads call it at once."""

Worth = tuple[float, str]
"""dB of the output that is worth least, and its name."""


def run_of(quantized: Model, *, fuse: bool = True) -> Run:
    """A quantized model that runs as a user's onnxruntime does; `fuse` False: without its integer kernels."""
    run = Runner(quantized, threads=1, fuse=fuse)
    return lambda feed: run(fit(feed, quantized))


class OutputJudge:
    """What the float model makes of some samples, to judge quantized ones by. The same whatever runs at a time.

    Args:
        model: the float model.
        feeds: the samples that judge.
        counted: which positions of the outputs are looked at; None: all.
        names: the outputs that count, one at least; None: all.

    Raises:
        DataError: there is no sample, or the model fails on one.
    """

    def __init__(
        self,
        model: Model,
        feeds: Sequence[Feed],
        counted: Counted | None = None,
        names: Collection[str] | None = None,
    ) -> None:
        self.feeds, self._model, self._counted = feeds, model, counted
        self._outputs = output_names(model)
        self.names = [name for name in self._outputs if names is None or name in names]
        self._workers = 1 if io.is_heavy(model) else min(WORKERS, cores())  # each holds weights as floats
        run = Runner(model, self.names, threads=1)
        seen = at_least_one(feeds, "the worth of outputs")
        answers = (dict(zip(self.names, found, strict=True)) for _, found in self._answers(run, seen))
        self._expected = keep(answers, quarter_of_memory() // 4)

    def sums(self, run: Run, of: Callable[[Dims | None], M], samples: int | None = None) -> OutputSums[M]:
        """What measures that `of` makes count on the first so many samples; None: on all."""
        sums = OutputSums(self._model, self._counted, of, self.names)
        answers = self._answers(run, self.feeds[:samples])
        for (feed, found), expected in zip(answers, self._expected, strict=False):
            sums.add({**feed, **expected}, dict(zip(self._outputs, found, strict=True)))
        return sums

    def measured(self, run: Run, samples: int | None = None) -> Comparison:
        """All that is measured of the outputs of a quantized model, on the first so many samples; None: on all."""
        return comparison(self.sums(run, OutputMeasure, samples))

    def worth(self, run: Run, samples: int | None = None) -> Worth:
        """Of the output that is worth least; infinite where nothing can be measured: there is nothing to protect."""
        outputs = self.measured(run, samples).outputs
        known = {name: one.db for name, one in outputs.items() if one.db is not None}
        name = min(known, key=lambda name: known[name], default="")
        return known.get(name, math.inf), name

    def _answers(self, run: Run, feeds: Iterator[Feed] | Sequence[Feed]) -> Iterator[tuple[Feed, Arrays]]:
        """Each feed, and what a model makes of it; a few run at a time."""
        with ThreadPoolExecutor(self._workers) as pool:
            yield from in_order(lambda feed: (feed, run(feed)), feeds, pool, ahead=self._workers)
