"""What is asked for when a layer is tuned: its grid, and how to tune it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.grid import FACTORS, PER_TENSOR, Bound

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Grid:
    """The quantizer of the weight. scale (G, R); low, high: codes less the zero point, numbers or (G, R, 1);
    shared: the axes of (G, R) along which the scale is one (`grid.PER_CHANNEL`, `PER_TENSOR`, `PER_ROW`)."""

    scale: F32
    low: Bound
    high: Bound
    shared: tuple[int, ...] = PER_TENSOR


@dataclass(frozen=True)
class Recipe:
    """How to tune. The fields are those of `core.finetune`, and

    method    "nearest" or one of `rounding.METHODS`
    absolute  learning rates are in units of the weight, and are divided by the mean scale
    batch     positions in a mini-batch of the objective "sampled"
    factors   scales to try, as parts of the plan's
    """

    method: str = "adaround"
    num_iterations: int = 500
    learning_rate: float = 0.1
    absolute: bool = False
    lr_adjust: tuple[float, float] | None = None
    early_stop: bool = True
    window: int | None = None
    reg_param: float = 0.01
    beta_range: tuple[float, float] = (20.0, 2.0)
    warm_start: float = 0.2
    objective: str = "moments"
    batch: int = 256
    seed: tuple[int, ...] = (0,)
    scale_search: bool = True
    factors: tuple[float, ...] = FACTORS
    polish: int = 0
    ridge: float = 0.03
    update_bias: bool = True
