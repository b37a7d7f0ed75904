"""Flips and crops: other pictures of what a picture shows, for models that know them by what they show.

flip  left and right change places, of every other one
crop  n ≥ 1:  n pixels more on every side, as the border goes on, of which a part of the old size is taken anywhere
      s < 1:  a part of s … 1 of both sides, taken anywhere, brought back to the old size (bilinear)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.data_sources import InputSpec
from quark_onnx.engine.labels import LABELS

Array = NDArray[Any]

CHANNELS = (1, 3, 4)
"""Of pictures; the axis of that many holds them."""


@dataclass(frozen=True)
class FlipsAndCrops:
    """An `Augment` for the inputs that are pictures.

    heights  input → axis of its rows; that of its columns is the next one
    """

    heights: Mapping[str, int]
    flip: bool
    crop: float

    def __call__(self, feed: Feed, chance: np.random.Generator) -> Feed:
        """The sample, flipped and cropped; all of its pictures alike."""
        mirrored = self.flip and chance.random() < 0.5
        places = chance.random(3)
        return {name: self._changed(name, array, mirrored, places) for name, array in feed.items()}

    def _changed(self, name: str, array: Array, mirrored: bool, places: Array) -> Array:
        axis = self.heights.get(name)
        if axis is None:
            return array
        if self.crop:
            cropped = _shifted if self.crop >= 1 else _zoomed
            array = cropped(array, axis, self.crop, places)
        return np.ascontiguousarray(np.flip(array, axis + 1) if mirrored else array)


def flips_and_crops(
    inputs: Sequence[InputSpec], labels: Array | None, *, flip: bool, crop: float
) -> FlipsAndCrops | None:
    """The augmentation that the settings ask for; None: none.

    Args:
        labels: of any samples, or None.

    Raises:
        ConfigError: `crop` is a part of a pixel, no input is a picture, or labels say where something is in it, which
            would move.
    """
    if not flip and not crop:
        return None
    if crop > 1 and crop % 1:
        raise ConfigError(f"QAT: crop is {crop}; give whole pixels, or a part of the side below 1")
    asked = "flip" if flip else "crop"
    heights = {spec.name: axis for spec in inputs if (axis := _height(spec)) is not None}
    if not heights:
        told = ", ".join(f"{spec.name!r} {list(spec.shape or ())}" for spec in inputs)
        raise ConfigError(
            f"QAT: {asked} is for pictures, of 4 dimensions with {CHANNELS} channels, and the inputs are {told}; pass "
            "a function of your own as `augment`, or leave it out"
        )
    if labels is not None and not _of_the_whole(labels):
        raise ConfigError(
            f"QAT: {asked} moves what is in a picture, and labels of the shape {labels.shape[1:]} may say where it is; "
            f"pass a function as `augment` that changes them, too (feed[{LABELS!r}]), or leave {asked} out"
        )
    return FlipsAndCrops(heights, flip, crop)


def _height(spec: InputSpec) -> int | None:
    """The axis of the rows of a picture; None: it is none."""
    dims = spec.shape
    if dims is None or len(dims) != 4:
        return None
    if dims[1] in CHANNELS:
        return 2
    return 1 if dims[3] in CHANNELS else None


def _of_the_whole(labels: Array) -> bool:
    """Whether labels are of whole pictures: a class each, or how likely each class is."""
    if labels.ndim == 1:
        return True
    return labels.ndim == 2 and bool((labels >= 0).all()) and np.allclose(labels.sum(1), 1, atol=1e-3)


def _shifted(array: Array, axis: int, crop: float, places: Array) -> Array:
    """A part of the old size of the picture with `crop` pixels more on each side."""
    around = int(crop)
    for k, side in enumerate((axis, axis + 1)):
        at = np.arange(array.shape[side]) + int(places[k] * (2 * around + 1)) - around
        array = array.take(at.clip(0, array.shape[side] - 1), side)
    return array


def _zoomed(array: Array, axis: int, crop: float, places: Array) -> Array:
    """A part of `crop` … 1 of each side, in the old size."""
    share = crop + (1 - crop) * places[2]
    for k, side in enumerate((axis, axis + 1)):
        array = _stretched(array, side, share, places[k])
    return array


def _stretched(array: Array, axis: int, share: float, place: float) -> Array:
    """A part of one side, bilinear, in the array's type."""
    size = array.shape[axis]
    at = (np.arange(size) + 0.5) * share - 0.5 + place * (1 - share) * size
    low = np.floor(at).astype(int)
    weights = (at - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(array.ndim)])
    left, right = (array.take((low + k).clip(0, size - 1), axis).astype(np.float32) for k in (0, 1))
    mixed = left + weights * (right - left)
    made: Array = (np.rint(mixed) if array.dtype.kind in "iu" else mixed).astype(array.dtype)
    return made
