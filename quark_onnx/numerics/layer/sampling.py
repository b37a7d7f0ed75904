"""What tuning needs to know of one layer's data: sampled output positions, streamed into sums, a few of them kept.

x is the layer's input in the float model, z the same in the quantized model as tuned so far; y = W x + b. Positions
are drawn at random, the same number from every sample; some samples are held out, to judge what the others taught.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.layer.drawn_positions import Samples, counts_of, drawn, read
from quark_onnx.numerics.layer.held_out_split import Kept, LayerData, Part
from quark_onnx.numerics.layer.im2col import ConvShape, Index
from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.parallel_blocks import in_order
from quark_onnx.numerics.rounding.moments import ActiveMeans, Moments, Sums, mask_of

F32 = NDArray[np.float32]


class Summed(Protocol):
    """What is made of positions: it adds up."""

    def __add__(self: T, other: T) -> T: ...


T = TypeVar("T", bound=Summed)

CHUNK = 2**24
"""Elements of patches that a job has in memory at once."""

POSITIONS, DROPS = 1, 2
"""What comes behind a seed: choices that are made with the seed itself, as the order of positions, have a stream of
their own. (0 would be the same stream: entropy is filled up with zeros.)"""

FEWEST, MOST = 2**8, 2**12
"""Positions of a job: with fewer, adding up the sums costs more than they do; with more, workers wait."""


@dataclass(frozen=True, eq=False)
class Layer:
    """The float layer: weight (G, R, K), bias (G, R), how it reads its input (None: its last axis is K), and
    the open interval of y that its activation function lets through (None: everything)."""

    weight: F32
    bias: F32
    shape: ConvShape | None = None
    active: tuple[float, float] | None = None


def sample(
    layer: Layer,
    samples: Samples,
    held: NDArray[np.bool_],
    *,
    positions: int = 20000,
    keep: int = 6000,
    drop_ratio: float = 1.0,
    seed: tuple[int, ...] = (0,),
    pool: Executor | None = None,
    squares: bool = True,
) -> LayerData:
    """Sums over about `positions` output positions of all samples, about `keep` of which are also kept.

    held: (samples,) of `held_out`. drop_ratio: part of z's elements that are quantized, the rest are x's (QDrop, Wei
    et al. 2022, arXiv 2203.05740). seed: of the positions, e.g. (seed, number of the layer). squares: False leaves out
    the K × K sums, which an optimizer needs that does not look at positions. The result does not depend on the pool.

    Raises:
        ValueError: no sample is left to learn from, or the data is not finite.
    """
    stride = stride_of(layer, samples, positions, keep)
    judged_by_squares = squares and (not keep or layer.weight.shape[1] == 1)  # else what is kept judges
    train, judge = both_sides(
        layer,
        samples,
        held,
        lambda x, z: _part(layer, x, z, stride, squares),
        lambda x, z: _part(layer, x, z, stride, judged_by_squares),
        positions=positions,
        drop_ratio=drop_ratio,
        seed=seed,
        pool=pool,
    )
    if not all(part.sums.finite for part in (train, judge or train)):
        raise ValueError("the layer's input or output is not finite, or too large to be squared")
    return LayerData(train, judge)


def both_sides(
    layer: Layer,
    samples: Samples,
    held: NDArray[np.bool_],
    make: Callable[[F32, F32], T],
    make_held: Callable[[F32, F32], T] | None = None,
    *,
    positions: int,
    drop_ratio: float,
    seed: tuple[int, ...],
    pool: Executor | None,
) -> tuple[T, T | None]:
    """What `make` makes of x and z (G, n, K), added up over the samples that teach, and over those held out, if any; of
    the latter what `make_held` makes, if it is given.

    Raises:
        ValueError: no sample is left to learn from.
    """
    groups, _, inputs = layer.weight.shape
    counts = counts_of(samples, layer.shape, inputs)
    at = drawn(counts, _per(positions, samples), np.random.default_rng((*seed, POSITIONS)))
    size = groups * inputs
    chunk = min(max(FEWEST, CHUNK // size), MOST)
    jobs = [list(_chunks([i for i, h in enumerate(held) if h == side], at, chunk)) for side in (False, True)]
    if not jobs[0]:
        raise ValueError("no sample to learn from: there are none, or all are held out")

    def work(which: list[int]) -> T:
        made = make if make_held is None or not held[which[0]] else make_held
        x, z = read(samples, which, at, layer.shape, inputs)
        if drop_ratio < 1:
            rng = np.random.default_rng((*seed, DROPS, which[0]))
            z = np.where(rng.random(z.shape, np.float32) < drop_ratio, z, x)
        return made(x, z)

    # wide layers have sums of hundreds of megabytes
    parts = in_order(work, [job for side in jobs for job in side], pool, ahead=0 if size > 2**12 else 2)
    train, judge = (reduce(operator.add, islice(parts, len(side))) if side else None for side in jobs)
    assert train is not None
    return train, judge


def stride_of(layer: Layer, samples: Samples, positions: int, keep: int) -> int:
    """Every how many of the drawn positions one is kept; 0: none is."""
    return max(1, -(-drawn_in_all(layer, samples, positions) // keep)) if keep else 0


def drawn_in_all(layer: Layer, samples: Samples, positions: int) -> int:
    """How many positions are drawn of all samples."""
    counts = counts_of(samples, layer.shape, layer.weight.shape[2])
    return sum(min(_per(positions, samples), count) for count in counts)


def _per(positions: int, samples: Samples) -> int:
    """How many positions are drawn of each sample."""
    return max(1, positions // len(samples.x))


def bytes_of(weight_shape: tuple[int, int, int], positions: int, keep: int, squares: bool = True) -> int:
    """About how much memory `sample` and `tune` take at their peak for a layer: to skip one that is too large."""
    groups, rows, inputs = weight_shape
    sums = (
        4 * 8 * groups * inputs * (inputs + rows) if squares else 0
    )  # two sides, a job under way, what is made of them
    job = min(positions, 2 * MOST, FEWEST + CHUNK // (groups * inputs))
    return sums + 4 * groups * (2 * keep + 3 * job) * (inputs + rows)


def _chunks(which: list[int], at: Sequence[Index], chunk: int) -> Iterator[list[int]]:
    """Samples in jobs of about `chunk` positions."""
    job: list[int] = []
    size = 0
    for i in which:
        job.append(i)
        size += len(at[i])
        if size >= chunk:
            yield job
            job, size = [], 0
    if job:
        yield job


def _part(layer: Layer, x: F32, z: F32, stride: int, squares: bool) -> Part:
    """The statistics of some positions; every `stride`-th is kept."""
    with np.errstate(over="ignore", invalid="ignore"):  # `sample` looks at the sums
        y = product(x, np.swapaxes(layer.weight, 1, 2))
        y += layer.bias[:, None]
        kept = Kept(y[:, ::stride].copy(), z[:, ::stride].copy()) if stride else None
        if layer.active is not None and squares and y.shape[2] == 1:
            # one row per group: the moments themselves can look at its active positions
            return Part(Moments.of(y, z, mask_of(y[..., 0], layer.active)), kept)
        sums = Moments.of(y, z) if squares else Sums.of(y, z)
        return Part(sums, kept, None if layer.active is None else ActiveMeans.of(y, z, layer.active))
