"""Feeds without their padding, where a model computes the same without it.

    samples of a batch go apart by where their positions begin and end ─▶ inputs are cut there ─▶ outputs are compared

Nothing that is learned of such feeds learns of padding, and they run faster: nobody else needs to know of a mask. A
model that counts positions from the left, padding included, or takes a mean over all of them is not the same without;
nor can one be cut whose inputs have a fixed length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import DataError, ModelError
from quark_onnx.core.plan import Skip
from quark_onnx.engine.calibration_data import Feed, InputSpec
from quark_onnx.engine.kept_feeds import Kept, keep
from quark_onnx.engine.runner import Runner
from quark_onnx.engine.sample_mask import Marks, marks_of
from quark_onnx.graph import Model
from quark_onnx.graph.mask_inputs import MaskInput
from quark_onnx.numerics.metrics import Sqnr

Shape = tuple[int, ...]

COMPARED = 4
"""Feeds on which the outputs are compared: from the shortest to the longest of those that are cut."""

EQUAL_DB = 60.0
"""Sums in another order cost some of the 144 dB of float32; a position too many or too few leaves less than half."""


@dataclass(frozen=True)
class Part:
    """Of a feed: which samples (None: all), and their positions from start to stop."""

    samples: tuple[int, ...] | None
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """Where positions and samples lie in the inputs.

    axes     input → axes of positions
    samples  inputs that have samples along axis 0 and may be taken apart there
    """

    axes: Mapping[str, tuple[int, ...]]
    samples: frozenset[str]

    @classmethod
    def of(cls, inputs: Sequence[InputSpec], shapes: Sequence[Mapping[str, Shape]], marks: Sequence[Marks]) -> Layout:
        """An axis is one of positions where its dimension is open and it is as long as the mask in every feed."""

        def along(name: str, axis: int, sizes: Sequence[int]) -> bool:
            pairs = zip((shape[name] for shape in shapes), sizes, strict=True)
            return all(len(shape) > axis and shape[axis] == size for shape, size in pairs)

        rows, lengths = ([each.shape[axis] for each in marks] for axis in (0, 1))
        axes, samples, tied = dict[str, tuple[int, ...]](), set[str](), False
        for spec in inputs:
            rank = min(len(shape[spec.name]) for shape in shapes)
            first = 1 if rows == lengths else 0  # else samples would pass for positions
            found = [a for a in range(first, rank) if along(spec.name, a, lengths)]
            axes[spec.name] = tuple(a for a in found if _open(spec, a))
            if 0 not in found and along(spec.name, 0, rows):
                tied |= not _open(spec, 0)
                samples.add(spec.name)
        return cls(axes, frozenset() if tied else frozenset(samples))

    def parts(self, marks: Marks) -> list[Part]:
        """What is left of a feed; samples without a position that counts are left out."""
        if marks.all():
            return [Part(None, 0, marks.shape[1])]
        if len(marks) == 1 or not self.samples:
            return [Part(None, *_span(marks.any(0)))]
        spans: dict[tuple[int, int], list[int]] = {}
        for i, row in enumerate(marks):
            if row.any():
                spans.setdefault(_span(row), []).append(i)
        return [Part(tuple(members), *span) for span, members in spans.items()]

    def cut(self, feed: Feed, part: Part) -> Feed:
        """A part of a feed."""
        return {name: self._part(name, array, part) for name, array in feed.items()}

    def _part(self, name: str, array: NDArray[Any], part: Part) -> NDArray[Any]:
        if part.samples is not None and name in self.samples:
            array = array[list(part.samples)]
        for axis in self.axes[name]:
            array = array.take(range(part.start, part.stop), axis)
        return array


def _open(spec: InputSpec, axis: int) -> bool:
    return spec.shape is None or spec.shape[axis] is None


def _span(row: Any) -> tuple[int, int]:
    at = np.flatnonzero(row)
    return int(at[0]), int(at[-1]) + 1


@dataclass(frozen=True, eq=False)
class Trimming:
    """How feeds are cut, and along which axes of the outputs positions lie, where they do."""

    mask: MaskInput
    layout: Layout
    outputs: Mapping[str, tuple[int, ...]]

    def __call__(self, feeds: Iterable[Feed]) -> Kept:
        """The feeds without padding; a batch of samples of several lengths becomes several feeds."""
        return keep(self._parts(feeds))

    def _parts(self, feeds: Iterable[Feed]) -> Iterator[Feed]:
        for feed in feeds:
            marks = marks_of(self.mask, feed[self.mask.name])
            if marks.all():
                yield feed
            else:
                yield from (self.layout.cut(feed, part) for part in self.layout.parts(marks))


def trimming(model: Model, inputs: Sequence[InputSpec], feeds: Sequence[Feed], mask: MaskInput) -> Trimming | Skip:
    """How these feeds may be cut; or why not.

    Args:
        inputs: all that feeds hold.
        mask: one of the inputs.
    """
    shapes, marks = list[dict[str, Shape]](), list[Marks]()
    for feed in feeds:
        shapes.append({name: array.shape for name, array in feed.items()})
        marks.append(marks_of(mask, feed[mask.name]))
    layout = Layout.of(inputs, shapes, marks)
    others = [spec.name for spec in inputs if spec.name != mask.name and layout.axes[spec.name]]
    if not layout.axes[mask.name] or not others:
        return Skip(f"the model leaves no dimension open that is as long as {mask.name!r} in all samples")
    outputs, chosen = dict[str, tuple[int, ...]](), _chosen(layout, marks)
    if not chosen:
        return Trimming(mask, layout, outputs)
    try:
        runner = Runner(model)
        for i in chosen:
            whole = dict(zip(runner.outputs, runner(feeds[i]), strict=True))
            for part in layout.parts(marks[i]):
                found = dict(zip(runner.outputs, runner(layout.cut(feeds[i], part)), strict=True))
                for name, array in found.items():
                    axes = _lined_up(whole[name], array, part, marks[i])
                    if axes is None:
                        return Skip(f"output {name!r} is another one without padding")
                    outputs[name] = axes or outputs.get(name, ())
    except (DataError, ModelError) as error:
        return Skip(f"the model does not run without padding: {error}")
    return Trimming(mask, layout, {name: axes for name, axes in outputs.items() if axes})


def _chosen(layout: Layout, marks: Sequence[Marks]) -> list[int]:
    """Some of the feeds that are cut, from the shortest to the longest."""
    lengths = {
        i: min(part.stop - part.start for part in layout.parts(each)) for i, each in enumerate(marks) if not each.all()
    }
    padded = sorted(lengths, key=lengths.__getitem__)
    return list(dict.fromkeys(padded[k * (len(padded) - 1) // (COMPARED - 1)] for k in range(COMPARED) if padded))


def _lined_up(whole: Any, found: Any, part: Part, marks: Marks) -> tuple[int, ...] | None:
    """The axes along which an output is cut as the inputs are, and else the same; None: it is another one."""
    if not isinstance(whole, np.ndarray) or whole.ndim != found.ndim:
        return None
    if part.samples is not None:
        if not whole.ndim or len(whole) != len(marks):
            return None
        whole = whole[list(part.samples)]
    axes = tuple(axis for axis in range(whole.ndim) if whole.shape[axis] != found.shape[axis])
    for axis in axes:
        if whole.shape[axis] != marks.shape[1]:
            return None
        whole = whole.take(range(part.start, part.stop), axis)
    if whole.shape != found.shape:
        return None
    if whole.dtype.kind != "f":
        return axes if np.array_equal(whole, found) else None
    ratio = Sqnr()
    ratio.add(whole, found)
    return axes if ratio.db >= EQUAL_DB else None
