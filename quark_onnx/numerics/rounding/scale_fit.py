"""The scale of a weight in closed form: the best one for codes that are given.

loss(s) = Σ over rows that share s of (s c − o) H (s c − o)ᵀ − 2 (s c − o) rᵀ   →   s = Σ c (H oᵀ + rᵀ) / Σ c H cᵀ
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import product
from quark_onnx.numerics.rounding.objectives import Quadratic

F32 = NDArray[np.float32]


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # what is not finite is not taken
def fitted_scale(codes: F32, scale: F32, q: Quadratic, shared: tuple[int, ...], gain: F32, floor: F32) -> F32:
    """(G, R) scales for codes (G, R, K), at least `floor`; as they were where none is better than 0 or a number.

    gain (G, R): how much the network cares for a row, where rows share a scale, along the axes `shared`.
    """
    bent = product(codes, q.hessian)
    wanted = (bent * q.origin + codes * q.residual).sum(-1) * gain
    cost = (bent * codes).sum(-1) * gain
    if shared:
        wanted, cost = (np.broadcast_to(a.sum(shared, keepdims=True), scale.shape) for a in (wanted, cost))
    found = np.asarray(wanted / cost, np.float32)
    return np.maximum(np.where((found > 0) & np.isfinite(found), found, scale), floor)
