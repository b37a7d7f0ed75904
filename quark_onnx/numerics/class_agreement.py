"""How far two outputs agree on classes: the share of rows with the same largest value, and KL(float ‖ quantized).

KL = mean over rows of Σ p · log(p / q), where p and q are the rows themselves if those of the float model are
distributions (not negative, sums of 1), and their softmax if they are logits.

Classes lie along the axis on which the values are distributions. Where they are none, outputs of two axes (samples,
classes), and the channels of those of four or more (segmentation), are taken for logits. Of outputs of three axes that
cannot be told: boxes and scores look the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.metrics import are_distributions, divergence, row_blocks

Floats = NDArray[np.float64]

NEVER = -1e30
"""A logit of −∞, as masks have it, in numbers that differences can be taken of."""


@dataclass
class ClassAgreement:
    """Sums over as many pairs of arrays as are added."""

    rows: int = 0
    same: int = 0
    divergence: float = 0.0

    def add(self, x: NDArray[Any], y: NDArray[Any], channels: int | None) -> None:
        """Count one pair of float arrays of equal shape, `channels` being their axis of channels."""
        axis = class_axis(x, channels)
        if axis is None or not x.size or x.shape[axis] < 2:
            return
        known = are_distributions(x, axis)
        for p, q in row_blocks(x, y, axis):
            self._count(p, q, known=known)

    def _count(self, p: Floats, q: Floats, *, known: bool) -> None:
        """Rows that the float model has NaN or infinity in, but for a mask, say nothing of classes."""
        p[p == -np.inf], q[q == -np.inf] = NEVER, NEVER
        usable = np.isfinite(p).all(0)
        if not usable.all():
            p, q = p[:, usable], q[:, usable]
        self.rows += p.shape[1]
        self.same += int((p.argmax(0) == q.argmax(0)).sum())
        lost = not np.isfinite(q).all()
        self.divergence += np.inf if lost else float(divergence(p, q, known=known).sum())

    @property
    def share(self) -> float | None:
        """Rows with the same largest value; None where there are no classes."""
        return self.same / self.rows if self.rows else None

    @property
    def kl(self) -> float | None:
        """Mean divergence in nats; None where there are no classes."""
        return max(0.0, self.divergence / self.rows) if self.rows else None


def class_axis(x: NDArray[Any], channels: int | None) -> int | None:
    """The axis of classes, None where there are none."""
    if x.ndim < 2:
        return None
    for axis in dict.fromkeys((x.ndim - 1, 1)):
        if x.shape[axis] > 1 and are_distributions(x, axis):
            return axis
    return None if x.ndim == 3 else channels
