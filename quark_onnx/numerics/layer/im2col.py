"""Convolution as a matrix product: the input patch behind each sampled output position (im2col, sampled).

Any number of spatial axes; strides, explicit pads, dilations, groups; also transposed. Only the sampled positions are
ever materialized. Layout of patches: (G, n, K), K running over (*kernel, input channel of the group): the order of
onnxruntime's integer kernels, in which neighbours are added in int16 on some processors (see `numerics.weight_pairs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class ConvShape:
    """The attributes of a Conv or ConvTranspose over d spatial axes, all explicit.

    kernel, strides, dilations, output_padding  d numbers each (output_padding: transposed only)
    pads        2d numbers, all begins then all ends, as in ONNX; auto_pad is resolved by the caller
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        axes = len(self.kernel)
        if not (len(self.strides) == len(self.dilations) == axes and len(self.pads) == 2 * axes):
            raise ValueError(f"kernel {self.kernel} does not fit strides, dilations and pads: {self}")

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial size of the output for an input's."""
        axes = len(self.kernel)
        extra = self.output_padding or (0,) * axes
        sizes = []
        for i, length in enumerate(size):
            reach, pad = self.dilations[i] * (self.kernel[i] - 1), self.pads[i] + self.pads[axes + i]
            if self.transposed:
                sizes.append(self.strides[i] * (length - 1) + extra[i] + reach + 1 - pad)
            else:
                sizes.append((length + pad - reach - 1) // self.strides[i] + 1)
        return tuple(sizes)


def rows_of(weight: F32, shape: ConvShape) -> F32:
    """An ONNX kernel, (O, C/G, *kernel) or transposed (C, O/G, *kernel), as (G, R, K)."""
    g = shape.group
    if shape.transposed:
        c, o = weight.shape[:2]
        return np.ascontiguousarray(weight.reshape(g, c // g, o, -1).transpose(0, 2, 3, 1)).reshape(g, o, -1)
    o, c = weight.shape[:2]
    return np.ascontiguousarray(weight.reshape(g, o // g, c, -1).swapaxes(2, 3)).reshape(g, o // g, -1)


def kernel_of(rows: F32, like: tuple[int, ...], shape: ConvShape) -> F32:
    """The inverse of `rows_of`: an array of the kernel's shape `like`."""
    g, o, _ = rows.shape
    if shape.transposed:
        return np.ascontiguousarray(rows.reshape(g, o, -1, like[0] // g).transpose(0, 3, 1, 2)).reshape(like)
    return np.ascontiguousarray(rows.reshape(g, o, -1, like[1]).swapaxes(2, 3)).reshape(like)


def patches(x: NDArray[np.generic], positions: Index, shape: ConvShape, fill: float = 0) -> NDArray[np.generic]:
    """(C, *spatial) → (G, n, K): what each output position (n, d) of one sample reads, in the type of x.

    fill: what padding reads as; 0, or the zero point when x holds codes.
    """
    index, inside = taps(positions, x.shape[1:], shape)
    found = np.ascontiguousarray(gather(x, index, shape.group))
    fill_outside(found, inside, fill)
    return found.reshape(shape.group, -1, len(positions)).swapaxes(1, 2)


def gather(x: NDArray[np.generic], index: Index, group: int) -> NDArray[np.generic]:
    """(C, *spatial) at the places (taps, n) that `taps` returned: (G, taps, C/G, n), so that K is in order."""
    taken = x.reshape(len(x), -1).take(index, 1)
    return taken.reshape(group, len(x) // group, *index.shape).swapaxes(1, 2)


def fill_outside(found: NDArray[np.generic], inside: NDArray[np.bool_], fill: float) -> None:
    """Set what lies outside of the input, in an array as `gather` returns it."""
    for tap in np.flatnonzero(~inside.all(1)):
        found[:, tap, :, ~inside[tap]] = fill


def taps(positions: Index, size: tuple[int, ...], shape: ConvShape) -> tuple[Index, NDArray[np.bool_]]:
    """Flat input index (taps, n) that each output position (n, d) reads, and whether it lies inside the input."""
    axes = len(shape.kernel)
    offsets = np.indices(shape.kernel).reshape(axes, -1, 1)
    dilation, stride, pad, limit = (
        np.array(v).reshape(axes, 1, 1) for v in (shape.dilations, shape.strides, shape.pads[:axes], size)
    )
    where = positions.T[:, None]
    if shape.transposed:
        at = where + pad - offsets * dilation
        inside = (at % stride == 0).all(0)
        at = at // stride
    else:
        at = where * stride - pad + offsets * dilation
        inside = np.ones(at.shape[1:], bool)
    inside &= ((at >= 0) & (at < limit)).all(0)
    return np.ravel_multi_index(tuple(np.clip(at, 0, limit - 1)), size), inside


def every_position(size: tuple[int, ...]) -> Index:
    """All positions (n, d) of an output of this size, in order."""
    return np.indices(size).reshape(len(size), -1).T
