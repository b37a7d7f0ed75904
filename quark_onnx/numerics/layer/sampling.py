"""What tuning needs to know of one layer's data: sampled output positions, streamed into sums, a few of them kept.

x is the layer's input in the float model, z the same in the quantized model as tuned so far; y = W x + b. Positions
are drawn at random, the same number from every sample; some samples are held out, to judge what the others taught.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.layer.held_out_split import Kept, LayerData, Part
from quark_onnx.numerics.layer.im2col import ConvShape, gather, sample_positions, taps
from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.parallel_blocks import AHEAD, in_order
from quark_onnx.numerics.rounding.moments import ActiveMeans, Moments, mask_of

F32 = NDArray[np.float32]

Arrays = Sequence[NDArray[np.generic]]


class Sums(Protocol):
    """What is made of positions: it adds up."""

    def __add__(self: T, other: T) -> T: ...


T = TypeVar("T", bound=Sums)

CHUNK = 2**22
"""Elements of patches that a job has in memory at once."""

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


class Samples(NamedTuple):
    """One input of the layer, float and quantized, sample by sample: (C, *spatial), or (…, K) when dense.

    z = (codes − zero_point) · scale; floats pass with scale 1 and zero point 0.
    """

    x: Arrays
    codes: Arrays
    scale: float = 1.0
    zero_point: int = 0

    @classmethod
    def of(cls, x: Arrays, codes: Arrays, scale: float = 1.0, zero_point: int = 0) -> Samples:
        """From batches, whose first axis numbers the samples."""
        flat_x, flat_codes = ([sample for batch in batches for sample in batch] for batches in (x, codes))
        return cls(flat_x, flat_codes, scale, zero_point)


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
) -> LayerData:
    """Sums over about `positions` output positions of all samples, about `keep` of which are also kept.

    held: (samples,) of `held_out`. drop_ratio: part of z's elements that are quantized, the rest are x's (QDrop, Wei
    et al. 2022, arXiv 2203.05740). seed: of the positions, e.g. (seed, number of the layer). The result does not
    depend on the pool.

    Raises:
        ValueError: no sample is left to learn from, or the data is not finite.
    """
    stride = stride_of(layer, samples, positions, keep)
    train, judge = both_sides(
        layer,
        samples,
        held,
        lambda x, z: _part(layer, x, z, stride),
        positions=positions,
        drop_ratio=drop_ratio,
        seed=seed,
        pool=pool,
    )
    if not all(part.moments.finite for part in (train, judge or train)):
        raise ValueError("the layer's input or output is not finite, or too large to be squared")
    return LayerData(train, judge)


def stride_of(layer: Layer, samples: Samples, positions: int, keep: int) -> int:
    """Every how many of the drawn positions one is kept; 0: none is."""
    return max(1, -(-sum(_counts(layer, samples, positions)) // keep)) if keep else 0


def both_sides(
    layer: Layer,
    samples: Samples,
    held: NDArray[np.bool_],
    make: Callable[[F32, F32], T],
    *,
    positions: int,
    drop_ratio: float,
    seed: tuple[int, ...],
    pool: Executor | None,
) -> tuple[T, T | None]:
    """What `make` makes of x and z (G, n, K), added up over the samples that teach, and over those held out, if any.

    Raises:
        ValueError: no sample is left to learn from.
    """
    counts = _counts(layer, samples, positions)
    seeds = np.random.SeedSequence(seed).spawn(len(samples.x))

    def work(which: list[int]) -> T:
        per = max(1, positions // len(samples.x))
        drawn = [draw(layer, samples, i, per, drop_ratio, np.random.PCG64(seeds[i])) for i in which]
        x, z = (np.concatenate(side, 1) for side in zip(*drawn, strict=True))
        return make(x, z)

    size = layer.weight.shape[0] * layer.weight.shape[2]
    chunk = min(max(FEWEST, CHUNK // size), MOST)
    jobs = [list(_chunks([i for i, h in enumerate(held) if h == side], counts, chunk)) for side in (False, True)]
    if not jobs[0]:
        raise ValueError("no sample to learn from: there are none, or all are held out")
    # wide layers have sums of hundreds of megabytes
    ahead = 0 if size > 2**12 else 2 if size > 2**10 else AHEAD
    parts = in_order(work, [job for side in jobs for job in side], pool, ahead=ahead)
    train, judge = (reduce(operator.add, islice(parts, len(side))) if side else None for side in jobs)
    assert train is not None
    return train, judge


def _counts(layer: Layer, samples: Samples, positions: int) -> list[int]:
    """Positions that are drawn of each sample."""
    per = max(1, positions // len(samples.x))
    return [min(per, _positions(layer, x)) for x in samples.x]


def bytes_of(weight_shape: tuple[int, int, int], positions: int, keep: int) -> int:
    """About how much memory `sample` and `tune` take at their peak for a layer: to skip one that is too large."""
    groups, rows, inputs = weight_shape
    sums = 4 * 8 * groups * inputs * (inputs + rows)  # two sides, a job under way, what is made of them
    return sums + 4 * groups * (2 * keep + 3 * min(positions, 2 * MOST)) * (inputs + rows)


def _positions(layer: Layer, x: NDArray[np.generic]) -> int:
    """Output positions of one sample."""
    if layer.shape is None:
        return max(1, x.size // int(layer.weight.shape[-1]))
    return math.prod(layer.shape.output_size(x.shape[1:]))


def _chunks(which: list[int], counts: list[int], chunk: int) -> Iterator[list[int]]:
    """Samples in jobs of about `chunk` positions."""
    job: list[int] = []
    size = 0
    for i in which:
        job.append(i)
        size += counts[i]
        if size >= chunk:
            yield job
            job, size = [], 0
    if job:
        yield job


def draw(layer: Layer, samples: Samples, i: int, per: int, drop_ratio: float, bits: np.random.PCG64) -> tuple[F32, F32]:
    """x and z (G, n, K) at `per` random positions of sample number i; see `sample`."""
    rng = np.random.Generator(bits)
    count = _positions(layer, samples.x[i])
    if layer.shape is None:
        rows = np.arange(count) if count <= per else np.sort(rng.choice(count, per, replace=False))
        x, c = (side.reshape(1, count, -1)[:, rows] for side in (samples.x[i], samples.codes[i]))
    else:
        at = sample_positions(layer.shape.output_size(samples.x[i].shape[1:]), per, rng)
        where = taps(at, samples.x[i].shape[1:], layer.shape)
        x = gather(samples.x[i], *where, layer.shape.group)
        c = gather(samples.codes[i], *where, layer.shape.group, fill=samples.zero_point)
    single = x.astype(np.float32)
    z = (c.astype(np.float32) - np.float32(samples.zero_point)) * np.float32(samples.scale)
    if drop_ratio < 1:
        z = np.where(rng.random(z.shape, np.float32) < drop_ratio, z, single)
    return single, z


def _part(layer: Layer, x: F32, z: F32, stride: int) -> Part:
    """The statistics of some positions; every `stride`-th is kept."""
    with np.errstate(over="ignore", invalid="ignore"):  # `sample` looks at the sums
        y = product(x, np.swapaxes(layer.weight, 1, 2)) + layer.bias[:, None]
        kept = Kept(y[:, ::stride].copy(), z[:, ::stride].copy()) if stride else None
        if layer.active is None:
            return Part(Moments.of(y, z), kept)
        if y.shape[2] == 1:  # one row per group: the moments themselves can look at its active positions
            return Part(Moments.of(y, z, mask_of(y[..., 0], layer.active)), kept)
        return Part(Moments.of(y, z), kept, ActiveMeans.of(y, z, layer.active))
