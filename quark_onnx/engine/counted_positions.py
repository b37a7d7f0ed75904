"""The positions of samples that count: feeds without the others, or, where they cannot be cut, tensors without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.engine.calibration_data import Feed, InputSpec
from quark_onnx.engine.kept_feeds import Kept, keep
from quark_onnx.engine.padded_axes import padded_axes
from quark_onnx.engine.runner import input_specs
from quark_onnx.engine.sample_mask import counting, marks_of
from quark_onnx.engine.trimmed_feeds import Trimming, trimming
from quark_onnx.graph import Model
from quark_onnx.graph.mask_inputs import MaskInput, mask_inputs
from quark_onnx.graph.view import output_names


@dataclass(frozen=True, eq=False)
class Counted:
    """What a mask says of tensors.

    mask      what says which positions count
    share     of all positions, those that count
    trimming  how feeds are cut to these; or why they are not
    axes      tensor → along which axes its positions lie; of others all values count
    """

    mask: MaskInput
    share: float
    trimming: Trimming | Skip
    axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def leaves_out(self) -> bool:
        """Whether there are positions that are left out."""
        return not isinstance(self.trimming, Skip) or bool(self.axes)

    @property
    def told(self) -> str:
        """What became of the others, in words."""
        name, uncut = repr(self.mask.name), isinstance(self.trimming, Skip)
        if isinstance(self.trimming, Skip) and not self.leaves_out:
            return f"all, also those that {name} says do not count: {self.trimming.reason}"
        where = f"they are left out of {len(self.axes)} tensors" if uncut else "samples were cut to the others"
        return f"{self.share:.0%}: the rest is padding, as {name} says; {where}, and outputs are not compared there"

    def cut(self, feeds: Sequence[Feed]) -> Kept:
        """Feeds for figures of what is inside of models: without padding, where they are cut."""
        return keep(feeds) if isinstance(self.trimming, Skip) else self.trimming(feeds)

    def values(self, name: str, array: Any, feed: Mapping[str, Any]) -> Any:
        """All values of a tensor that count, in a row where some do not."""
        parts = self.parts(name, array, feed)
        return array if len(parts) == 1 and parts[0] is array else np.concatenate([part.ravel() for part in parts])

    def parts(self, name: str, array: Any, feed: Mapping[str, Any]) -> list[Any]:
        """What counts of a tensor, see `counting`."""
        axes = self.axes.get(name)
        return counting(array, axes, marks_of(self.mask, feed[self.mask.name])) if axes else [array]

    def within(self, model: Model, tensors: Sequence[str], feeds: Sequence[Feed], *, asked: bool) -> Counted:
        """The same with axes of these tensors, where padding is left in the feeds.

        All positions count where padding has a say in an output, unless the user has asked for this mask: then it is as
        the mask says, as far as one axis alone is as long.
        """
        padded = next((feed for feed in feeds if not marks_of(self.mask, feed[self.mask.name]).all()), None)
        if padded is None:
            return self
        axes, unknown = padded_axes(model, tensors, padded, self.mask)
        heard = next((name for name in output_names(model) if name in unknown), None)
        if heard is not None and not asked:
            return replace(self, axes={}, trimming=Skip(f"output {heard!r} depends on them"))
        likely = {name: long for name, long in unknown.items() if len(long) == 1 and asked}
        return replace(self, axes={**self.axes, **likely, **axes})


def counted_pairs(counted: Counted | None, name: str, x: Any, y: Any, feed: Feed) -> Iterable[tuple[Any, Any]]:
    """What counts of a tensor in two models, of which one may have made it of another shape: then it is all.

    A sample without a position that counts, which fills a batch up, counts nowhere: not in what is pooled either.
    """
    arrays = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)  # a sequence is compared as a whole
    if counted is None or not arrays or x.shape != y.shape or not counted.leaves_out:
        return [(x, y)]
    if name not in counted.axes:
        filled = np.asarray(marks_of(counted.mask, feed[counted.mask.name]).any(1))
        rows = x.ndim and len(x) == len(filled) and not filled.all()
        return [(x[filled], y[filled]) if rows else (x, y)]
    return zip(counted.parts(name, x, feed), counted.parts(name, y, feed), strict=True)


def without_padding(
    model: Model, inputs: Sequence[InputSpec], feeds: Sequence[Feed], taught: Kept, mask: MaskInput
) -> tuple[Kept, Counted | None]:
    """Feeds to learn of, and where in outputs the others' positions lie; None where all positions count.

    Args:
        feeds: all that there are. taught: those that are learned of.
    """
    share = float(np.mean(np.concatenate([marks_of(mask, feed[mask.name]).ravel() for feed in feeds])))
    if not share < 1:
        return taught, None
    found = trimming(model, inputs, feeds, mask)
    counted = Counted(mask, share, found, {} if isinstance(found, Skip) else found.outputs)
    return counted.cut(taught), counted


def bare(model: Model, feeds: Sequence[Feed]) -> Sequence[Feed]:
    """The feeds without padding, if the graph shows what is, and the model computes the same without."""
    mask = next(iter(mask_inputs(model)), None)
    found = Skip("") if mask is None else trimming(model, input_specs(model), feeds, mask)
    return feeds if isinstance(found, Skip) else found(feeds)
