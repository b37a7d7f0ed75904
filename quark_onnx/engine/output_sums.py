"""What is measured of all outputs of two models, summed sample by sample, at the positions that count."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from quark_onnx.core.records import Comparison
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted, counted_pairs
from quark_onnx.graph import Model
from quark_onnx.graph.view import shape
from quark_onnx.numerics.output_measures import OutputMeasure

Dims = Sequence["int | None"]
"""Dimensions of an output as the model names them, None where it leaves them open."""


class Measure(Protocol):
    """Counts what the float model and another one make of an output."""

    def add(self, reference: object, other: object) -> None: ...


M = TypeVar("M", bound=Measure)


class OutputSums(Generic[M]):
    """A measure of each output; `of` makes it, from the dimensions of the output as the model names them.

    Args:
        counted: which positions are looked at; None: all.
        names: the outputs that are; None: all.
    """

    def __init__(
        self,
        model: Model,
        counted: Counted | None,
        of: Callable[[Dims | None], M],
        names: Collection[str] | None = None,
    ) -> None:
        declared = {value.name or "": shape(value) for value in model.graph.outputs}
        self.measures = {name: of(dims) for name, dims in declared.items() if names is None or name in names}
        self.samples, self._counted = 0, counted

    def add(self, known: Feed, found: Mapping[str, Any]) -> None:
        """One more sample.

        Args:
            known: what it holds, and what the float model makes of it. found: what the other one makes of it.
        """
        self.samples += 1
        for name, measure in self.measures.items():
            for pair in counted_pairs(self._counted, name, known[name], found[name], known):
                measure.add(*pair)


def comparison(sums: OutputSums[OutputMeasure]) -> Comparison:
    """All that was measured."""
    return Comparison({name: one.measured for name, one in sums.measures.items()}, sums.samples)
