"""The positions of samples that count: feeds without the others, or how to leave them out of a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quark_onnx.core.plan import Skip
from quark_onnx.engine.calibration_data import Feed, InputSpec
from quark_onnx.engine.kept_feeds import Kept
from quark_onnx.engine.sample_mask import counting, marks_of
from quark_onnx.engine.trimmed_feeds import trimming
from quark_onnx.graph import Model
from quark_onnx.graph.mask_inputs import MaskInput


@dataclass(frozen=True, eq=False)
class Counted:
    """What a mask says of tensors.

    mask  what says which positions count
    axes  tensor → along which axes its positions lie; of others all values count
    told  what became of positions that do not count, in words
    """

    mask: MaskInput
    axes: Mapping[str, tuple[int, ...]]
    told: str

    def pairs(self, name: str, x: Any, y: Any, feed: Feed) -> Iterator[tuple[Any, Any]]:
        """What counts of a tensor in two models, of which one may have made it of another shape: then it is all."""
        axes = self.axes.get(name)
        if not axes or x.shape != y.shape:
            return iter([(x, y)])
        marks = marks_of(self.mask, feed[self.mask.name])
        return zip(counting(x, axes, marks), counting(y, axes, marks), strict=True)


def share(feeds: Sequence[Feed], mask: MaskInput) -> float:
    """How many of the positions count."""
    marks = [marks_of(mask, feed[mask.name]) for feed in feeds]
    size = sum(each.size for each in marks)
    return sum(int(each.sum()) for each in marks) / size if size else 1.0


def without_padding(
    model: Model, inputs: Sequence[InputSpec], feeds: Sequence[Feed], taught: Kept, mask: MaskInput
) -> tuple[Kept, Counted | None]:
    """Feeds to learn of, and where in outputs the others' positions lie; None where all positions count.

    Args:
        feeds: all that there are. taught: those that are learned of.
    """
    counts = share(feeds, mask)
    if counts == 1:
        return taught, None
    found = trimming(model, inputs, feeds, mask)
    if isinstance(found, Skip):
        return taught, Counted(mask, {}, f"all count, also where {mask.name!r} says that they do not: {found.reason}")
    told = f"{1 - counts:.0%} are padding, as {mask.name!r} says, and do not count: samples were cut to the others"
    return found(taught), Counted(mask, found.outputs, told)
