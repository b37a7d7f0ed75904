"""Output positions of a layer with what it reads and should compute there: to learn from, and to judge by."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.core.settings.range_learning import RangeLearning
from quark_onnx.engine.layers.layer_inputs import Sides
from quark_onnx.numerics.layer.held_out_split import Kept, held_out
from quark_onnx.numerics.layer.range_learning import BUDGET
from quark_onnx.numerics.layer.sampling import Layer, Samples, draw
from quark_onnx.numerics.matrix_products import product

LOUD = 1e12
"""Numbers from here on are too large to be squared and added up in float32, with room for a layer that overshoots."""


def kept_positions(
    layer: Layer, read: Sides, options: RangeLearning, number: int, pool: ThreadPoolExecutor
) -> tuple[Kept, Kept] | Skip:
    """Random output positions, the same number of every sample: those to learn from, in random order, and those to
    judge by.

    number: of the layer, for its random choices.
    """
    groups, rows, inputs = layer.weight.shape
    count = len(read.x)
    per = max(1, min(options.positions, BUDGET // (groups * (rows + inputs))) // count)
    seed = (options.fixed_seed, number)
    *seeds, last = np.random.SeedSequence(seed).spawn(count + 1)
    samples = Samples(read.x, read.z)

    def one(i: int) -> Kept:
        x, z = draw(layer, samples, i, per, 1.0, np.random.PCG64(seeds[i]))
        with np.errstate(over="ignore", invalid="ignore"):  # the numbers are looked at below
            return Kept(product(x, np.swapaxes(layer.weight, 1, 2)) + layer.bias[:, None], z)

    drawn = list(pool.map(one, range(count)))
    held = held_out(count, options.holdout, options.fixed_seed)
    train, judge = (
        Kept(*(np.concatenate(side, 1) for side in zip(*part, strict=True))) if part else None
        for part in ([d for d, h in zip(drawn, held, strict=True) if h == side] for side in (False, True))
    )
    assert train is not None  # `held_out` leaves some
    if not all(np.abs(side).max() < LOUD for part in drawn for side in part):  # nan is not
        return Skip("the layer's input or output is not finite, or too large to be squared")
    if train.y.shape[1] < 2:
        return Skip("it has a single output position in all samples: give more of them")
    order = np.random.Generator(np.random.PCG64(last)).permutation(train.y.shape[1])
    shuffled = Kept(train.y[:, order], train.z[:, order])
    return shuffled, shuffled if judge is None else judge
