"""Output positions of a layer, drawn at random from every sample, and what the layer reads there.

All samples' positions are drawn at once, and what a convolution reads at them is looked up once for all samples of the
same size: with hundreds of samples, a call of numpy for each would take longer than the numbers themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.layer.im2col import ConvShape, Index, fill_outside, gather, taps

F32 = NDArray[np.float32]

Arrays = Sequence[NDArray[np.generic]]


class Samples(NamedTuple):
    """One input of the layer, float and quantized, sample by sample: (C, *spatial), or (…, K) when dense.

    z = (codes − zero_point) · scale; floats pass with scale 1 and zero point 0. `let_go` is called with each array that
    has been read, for those that lie in files.
    """

    x: Arrays
    codes: Arrays
    scale: float = 1.0
    zero_point: int = 0
    let_go: Callable[[NDArray[np.generic]], None] = lambda array: None

    @classmethod
    def of(cls, x: Arrays, codes: Arrays, scale: float = 1.0, zero_point: int = 0) -> Samples:
        """From batches, whose first axis numbers the samples."""
        flat_x, flat_codes = ([sample for batch in batches for sample in batch] for batches in (x, codes))
        return cls(flat_x, flat_codes, scale, zero_point)


def counts_of(samples: Samples, shape: ConvShape | None, inputs: int) -> list[int]:
    """Output positions of each sample; inputs: K of a dense layer."""
    if shape is None:
        return [max(1, x.size // inputs) for x in samples.x]
    by_size = {size: math.prod(shape.output_size(size)) for size in {x.shape[1:] for x in samples.x}}
    return [by_size[x.shape[1:]] for x in samples.x]


def drawn(counts: Sequence[int], per: int, rng: np.random.Generator) -> list[Index]:
    """`per` distinct positions of every sample, or all, in order; each such set is as likely as any other."""
    found: list[Index] = [np.empty(0, np.intp)] * len(counts)
    for count in dict.fromkeys(counts):
        same = [i for i, other in enumerate(counts) if other == count]
        for i, row in zip(same, _subsets(len(same), count, min(per, count), rng), strict=True):
            found[i] = row
    return found


def _subsets(rows: int, count: int, size: int, rng: np.random.Generator) -> Index:
    """(rows, size) numbers below `count`, in each row distinct and in order."""
    fewer = min(size, count - size)  # what is drawn, or what is left out: at most half, so that few collide
    found = np.sort(rng.integers(0, count, (rows, fewer)), 1)
    while (again := found[:, 1:] == found[:, :-1]).any():
        found[:, 1:][again] = rng.integers(0, count, again.sum())
        found.sort(1)
    if fewer == size:
        return found
    rest = np.ones((rows, count), bool)
    np.put_along_axis(rest, found, False, 1)
    return np.nonzero(rest)[1].reshape(rows, size)


def read(
    samples: Samples, which: Sequence[int], at: Sequence[Index], shape: ConvShape | None, k: int
) -> tuple[F32, F32]:
    """x and z (G, n, K) at positions of some samples, one after the other.

    which: numbers of the samples; at: all samples' positions, see `drawn`; k: inputs of a dense layer.
    """
    parts = [(i, end - len(at[i]), end) for i, end in zip(which, accumulate(len(at[i]) for i in which), strict=True)]
    if shape is None:
        x, z = (np.empty((1, parts[-1][2], k), np.float32) for _ in range(2))
        for i, start, end in parts:
            x[0, start:end] = samples.x[i].reshape(-1, k)[at[i]]
            z[0, start:end] = samples.codes[i].reshape(-1, k)[at[i]]
            samples.let_go(samples.x[i])
            samples.let_go(samples.codes[i])
        _dequantize(z, samples)
        return x, z
    cells, channels = math.prod(shape.kernel), len(samples.x[which[0]]) // shape.group
    sides = [np.empty((shape.group, cells, channels, parts[-1][2]), np.float32) for _ in range(2)]
    inside = np.empty((cells, parts[-1][2]), bool)
    for size, group in groupby(parts, lambda part: samples.x[part[0]].shape[1:]):
        alike = list(group)
        flat, first = np.concatenate([at[i] for i, *_ in alike]), alike[0][1]
        positions = np.stack(np.unravel_index(flat, shape.output_size(size)), -1)
        index, inside[:, first : first + len(flat)] = taps(positions, size, shape)
        for i, start, end in alike:
            for side, arrays in zip(sides, (samples.x, samples.codes), strict=True):
                side[..., start:end] = gather(arrays[i], index[:, start - first : end - first], shape.group)
                samples.let_go(arrays[i])
    _dequantize(sides[1], samples)
    for side in sides:
        fill_outside(side, inside, 0)
    x, z = (side.reshape(shape.group, cells * channels, -1).swapaxes(1, 2) for side in sides)
    return x, z


def _dequantize(codes: F32, samples: Samples) -> None:
    """In place."""
    if samples.zero_point:
        codes -= np.float32(samples.zero_point)
    if samples.scale != 1:
        codes *= np.float32(samples.scale)
