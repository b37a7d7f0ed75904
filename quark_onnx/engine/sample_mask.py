"""Which positions of a feed count, as its mask says: those of padding do not.

    [T]  [B, T]  [B, 1, 1, T]  [B, 1, T, T]      samples in front, positions at the end

What lies between, such as queries, are readers of a position: it counts where one of them reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.data_sources import InputSpec
from quark_onnx.graph.attention_masks import HIDES
from quark_onnx.graph.mask_inputs import MaskInput

Marks = NDArray[np.bool_]
"""(B, T): whether a position of a sample counts."""


def marks_of(mask: MaskInput, array: NDArray[Any]) -> Marks:
    """The positions that count, of what a feed holds of the mask; all, where it leaves none."""
    added = array.dtype.kind == "f" and bool((array <= -HIDES).any())
    kept = np.atleast_2d((mask._replace(padding="low") if added else mask).kept(array))
    rows = np.asarray(kept.any(tuple(range(1, kept.ndim - 1)))) if kept.ndim > 2 else kept
    return rows if rows.any() else np.ones_like(rows)


def mask_spec(name: str) -> InputSpec:
    """A mask that is no input of the model: what feeds hold of it."""
    return InputSpec(name, np.dtype(bool), (None, None), truth=True)


def counting(array: NDArray[Any], axes: Sequence[int], marks: Marks) -> list[NDArray[Any]]:
    """The parts of a tensor that count, of its rank: one, or one for each sample where their positions differ.

    Args:
        axes: along which its positions lie, as in the marks; none: all of it counts. Samples lie along the first axis,
            where there are several.
    """
    if not axes or marks.all():
        return [array]
    samples = np.split(array, len(marks)) if len(marks) > 1 else [array]
    return [_kept(sample, axes, row) for sample, row in zip(samples, marks, strict=True)]


def _kept(sample: NDArray[Any], axes: Sequence[int], row: NDArray[np.bool_]) -> NDArray[Any]:
    for axis in axes:
        sample = np.compress(row, sample, axis)
    return sample
