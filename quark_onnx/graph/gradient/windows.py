"""Where the windows of a convolution or a pool lie along the spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.step import Step, known_shape


@dataclass(frozen=True)
class Windows:
    """By spatial axis: size, step and spread of the windows, and zeros in front of the tensor and behind it."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """What a window spans."""
        return tuple((size - 1) * spread + 1 for size, spread in zip(self.kernel, self.dilations, strict=True))

    @property
    def axes(self) -> list[int]:
        """The spatial axes of the tensor."""
        return list(range(2, 2 + len(self.kernel)))

    @property
    def dense(self) -> bool:
        """Whether each place begins a window."""
        return set(self.strides) == {1}

    @property
    def pointwise(self) -> bool:
        """Whether each window is one place, and all places are seen."""
        return self.dense and set(self.kernel) == {1} and not any((*self.begins, *self.ends))

    def attributes(self, **others: Any) -> dict[str, Any]:
        """Of a Conv or ConvTranspose with these windows."""
        pads = [*self.begins, *self.ends]
        return {"strides": list(self.strides), "dilations": list(self.dilations), "pads": pads, **others}

    def rests(self, large: Sequence[int], small: Sequence[int]) -> tuple[int, ...]:
        """What no window reaches at the end of the padded tensor: large is its size without padding, small how many
        windows there are."""
        sizes = zip(large, small, self.strides, self.extents, self.begins, self.ends, strict=True)
        return tuple(n + a + b - extent - (m - 1) * stride for n, m, stride, extent, a, b in sizes)


def windows_of(step: Step, kernel: Sequence[int], large: ir.Value, small: ir.Value) -> Windows | Skip:
    """The windows of the node, over the spatial axes of `large`, each of which makes a place of `small`."""
    count = len(kernel)
    strides = tuple(step.integers("strides") or [1] * count)
    dilations = tuple(step.integers("dilations") or [1] * count)
    pads = step.integers("pads") or [0] * 2 * count
    auto = step.text("auto_pad", "NOTSET")
    found = Windows(tuple(kernel), strides, dilations, tuple(pads[:count]), tuple(pads[count:]))
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        return found
    sizes, counts = known_shape(large, slice(2, None)), known_shape(small, slice(2, None))
    if isinstance(sizes, Skip):
        return sizes
    if isinstance(counts, Skip):
        return counts
    bare = Windows(tuple(kernel), strides, dilations, (0,) * count, (0,) * count)
    missing = [max(-rest, 0) for rest in bare.rests(sizes, counts)]
    less = tuple(total // 2 for total in missing)
    more = tuple(total - half for total, half in zip(missing, less, strict=True))
    begins, ends = (less, more) if auto == "SAME_UPPER" else (more, less)
    return Windows(tuple(kernel), strides, dilations, begins, ends)
