"""Output positions of a layer with what it reads and should compute there: to learn from, and to judge by."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.core.settings.fast_finetune import RangeLearning
from quark_onnx.engine.activation_store import let_go
from quark_onnx.engine.layers.layer_inputs import Sides
from quark_onnx.numerics.layer.drawn_positions import Samples
from quark_onnx.numerics.layer.held_out_split import Kept, held_out
from quark_onnx.numerics.layer.range_learning import BUDGET
from quark_onnx.numerics.layer.sampling import Layer, sample

LOUD = 1e12
"""Numbers from here on are too large to be squared and added up in float32, with room for a layer that overshoots."""

ORDER = 3
"""What comes behind the seed for the order of positions: mini-batches are drawn with the seed itself."""

LARGE = "the layer's input or output is not finite, or too large to be squared"


def kept_positions(
    layer: Layer, read: Sides, options: RangeLearning, number: int, pool: ThreadPoolExecutor
) -> tuple[Kept, Kept] | Skip:
    """Random output positions, the same number of every sample: those to learn from, in random order, and those to
    judge by.

    number: of the layer, for its random choices.
    """
    groups, rows, inputs = layer.weight.shape
    positions = min(options.positions, BUDGET // (groups * (rows + inputs)))
    seed, held = (options.fixed_seed, number), held_out(len(read.x), options.holdout, options.fixed_seed)
    try:
        data = sample(
            layer,
            Samples(read.x, read.z, let_go=let_go),
            held,
            positions=positions,
            keep=len(read.x) * max(1, positions),
            seed=seed,
            pool=pool,
            squares=False,
        )
    except ValueError:
        return Skip(LARGE)
    train, judge = data.train.kept, None if data.held is None else data.held.kept
    assert train is not None
    if not all(np.abs(side).max() < LOUD for side in (*train, *(judge or ()))):  # nan is not
        return Skip(LARGE)
    if train.y.shape[1] < 2:
        return Skip("it has a single output position in all samples: give more of them")
    order = np.random.default_rng((*seed, ORDER)).permutation(train.y.shape[1])
    shuffled = Kept(train.y[:, order], train.z[:, order])
    return shuffled, shuffled if judge is None else judge
