"""The codes of a layer: learned by the method that is asked for, or found by what brings as much in less time.

`TuningSettings.quick` stands for the latter. With no iterations, as 8 bits have it, that is coordinate descent from the
nearest codes: AdaRound ends at the same error there. With some, as below 8 bits, what the method "gptq" does: GPTQ,
descent and pairs; scale and codes in turn, each the best for the other; and the iterations at this scale, of which then
a fifth is enough. Up to `FEW` inputs all roundings are tried, and nothing is learned. Weights in blocks have GPTQ with
any number of bits, and one block fitted after the other behind it. Decisions 007 and 027 have the measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.parallel_blocks import in_order, row_blocks
from quark_onnx.numerics.rounding.adaquant import adaquant
from quark_onnx.numerics.rounding.adaround import adaround
from quark_onnx.numerics.rounding.block_scales import refined
from quark_onnx.numerics.rounding.coordinate_descent import FEW, descend, exhaust, polish
from quark_onnx.numerics.rounding.gptq import Factor, factored, gptq
from quark_onnx.numerics.rounding.learning import Rounded
from quark_onnx.numerics.rounding.objectives import Objective, Quadratic, Sampled
from quark_onnx.numerics.rounding.scale_fit import fitted_scale
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.numerics.rounding.weight_grid import WeightGrid, each, nearest, steps, up_or_down
from quark_onnx.numerics.weight_pairs import repair

F32 = NDArray[np.float32]

WIDE = 1536
"""Inputs above which an iteration on K×K moments costs several times one on a mini-batch of positions."""

TOGETHER = 2**19
"""Weights whose rows GPTQ rounds at once: the loop through the columns has to be worth it."""

FITS = 2
"""How often the scale is fitted to the codes, and these to the scale."""

Method = Callable[[F32, WeightGrid, Objective, F32, TuningSettings], Rounded]

METHODS: dict[str, Method] = {"adaround": adaround, "adaquant": adaquant}
"""How the rounding is learned, by `TuningSettings.method`."""

UNLEARNED = ("nearest", "gptq")
"""Methods without iterations."""


@dataclass(frozen=True, eq=False)
class Rounding:
    """What the codes of a layer are looked for with.

    weight   (G, R, K)
    q        the error of its linear output
    sampled  that behind its activation function, on kept positions; None: none were kept
    gain     (G, R) how much the network cares for a row, where rows share a scale
    floor    (G, R) no scale may be smaller; those of blocks may be any
    pool     for blocks of rows; the result does not depend on it
    """

    weight: F32
    q: Quadratic
    sampled: Sampled | None
    grid: WeightGrid
    settings: TuningSettings
    gain: F32
    floor: F32
    pool: Executor | None = None

    def found(self) -> tuple[F32, F32, int]:
        """Codes (G, R, K) by the method that is asked for, their scale as in the grid, and iterations.

        Raises:
            ValueError: there is no such method.
        """
        method = self.settings.method
        if method not in (*UNLEARNED, *METHODS):
            raise ValueError(f"unknown method {method!r}; known are {', '.join((*UNLEARNED, *METHODS))}")
        if method == "nearest" or not self.q.curvature.max() > 0:  # no input varies: every rounding is as good
            return self._nearest(), self.grid.scale, 0
        if method == "gptq":
            return (*self._fitted_in_parts(), 0)
        if not self.settings.quick:
            return self._learned(METHODS[method])
        if not self.settings.num_iterations:
            return (self._descended(), self.grid.scale, 0) if self.grid.block is None else (*self._fitted_in_parts(), 0)
        codes, scale = self._fitted(factored(self.q)) if self.grid.block is None else self._fitted_in_parts()
        if self.weight.shape[2] <= FEW:  # all roundings have been tried
            return codes, scale, 0
        learned, _, iterations = replace(self, grid=self.grid.at(scale))._learned(METHODS[method])
        return (*self._better((codes, scale), (learned, scale)), iterations)

    def _nearest(self) -> F32:
        return nearest(self.weight, self.grid.scale, self.grid.low, self.grid.high, self.grid.safe_run)

    def _next_to(self, scale: F32) -> tuple[F32, F32]:
        """The two codes next to each weight."""
        return up_or_down(self.weight, scale, self.grid.low, self.grid.high, self.grid.safe_run)

    def _learned(self, method: Method) -> tuple[F32, F32, int]:
        """By gradients, in blocks of rows, then polished; in no row worse than rounding to nearest."""
        wide = self.weight.shape[2] > WIDE
        sampled = None if self.sampled is None or not (wide or self.settings.objective == "sampled") else self.sampled
        objective: Objective = sampled or self.q
        scale = self.grid.scale
        cost = np.square(each(scale)).mean(-1) * self.q.curvature
        unit = np.maximum(cost, max(1e-8 * float(cost.max()), 1e-30))  # dead rows must not divide by zero

        def solve(part: slice) -> Rounded:
            some = self.weight[:, part], self.grid.rows(part), objective.rows(part), unit[:, part]
            return method(*some, self.settings)

        blocks = list(in_order(solve, row_blocks(self.weight.shape), self.pool))
        codes, iterations = np.concatenate([block.codes for block in blocks], 1), max(b.iterations for b in blocks)
        if self.settings.polish:
            low, high = self._next_to(scale)
            if method is adaquant:
                low, high = self.grid.bounds()
            polished = polish(codes, low, high, scale, self.q, self.settings.polish, self.pool, self.grid.safe_run)
            worse = objective.loss(polished * each(scale)) > objective.loss(codes * each(scale))
            codes = np.where(worse[..., None], codes, polished)
        return codes, scale, iterations

    def _descended(self) -> F32:
        """One code at a time, or all roundings; in no row worse than rounding to nearest."""
        scale, close = self.grid.scale, self._next_to(self.grid.scale)
        if self.weight.shape[2] <= FEW:
            return exhaust(*close, scale, self.q, self.grid.safe_run)
        return descend(self._nearest(), *close, scale, self.q, self.settings.polish, self.grid.safe_run)

    def _fitted_in_parts(self) -> tuple[F32, F32]:
        """As `_fitted`, some rows at a time, unless they share a scale."""
        factor = factored(self.q, self.settings.act_order)
        parts = row_blocks(self.weight.shape, TOGETHER) if not self.grid.shared else [slice(None)]
        found = in_order(lambda part: self._rows(part)._fitted(factor), parts, self.pool)
        codes, scales = (np.concatenate(arrays, 1) for arrays in zip(*found, strict=True))
        return codes, scales

    def _rows(self, part: slice) -> Rounding:
        """The same for some of the rows, on the calling thread."""
        sampled = None if self.sampled is None else self.sampled.rows(part)
        weight, gain, floor = (array[:, part] for array in (self.weight, self.gain, self.floor))
        return Rounding(weight, self.q.rows(part), sampled, self.grid.rows(part), self.settings, gain, floor)

    def _fitted(self, factor: Factor | None) -> tuple[F32, F32]:
        """GPTQ; scale and codes in turn, each the best for the other. Rows that gain nothing by it stay."""
        scale, how = self.grid.scale, self.settings
        close = self._next_to(scale)
        codes = gptq(*close, scale, self.q, factor)
        if self.grid.block is None:
            found = self._fitted_rows(codes, close)
        else:
            found = refined(codes, self.q, self.grid, how.polish, fit=how.fit_scale)
        return self._better((self._nearest(), scale), found)

    def _fitted_rows(self, codes: F32, close: tuple[F32, F32]) -> tuple[F32, F32]:
        """Codes of GPTQ after descent, the scale fitted to them, and pairs."""
        scale, sweeps, safe = self.grid.scale, self.settings.polish, self.grid.safe_run
        codes = descend(self._safe(codes, scale), *close, scale, self.q, sweeps, safe)
        for _ in range(FITS if self.settings.fit_scale else 0):
            scale = fitted_scale(codes, scale, self.q, self.grid.shared, self.gain, self.floor)
            close = self._next_to(scale)
            codes = descend(self._safe(np.clip(codes, *close), scale), *close, scale, self.q, sweeps, safe)
        return polish(codes, *close, scale, self.q, sweeps, self.pool, safe), scale

    def _safe(self, codes: F32, scale: F32) -> F32:
        """Codes next to the weight, with safe pairs where these have to be."""
        if not (run := self.grid.safe_run):
            return codes
        return repair(codes, steps(self.weight, scale, self.grid.low, self.grid.high, run), run)

    def _better(self, first: tuple[F32, F32], second: tuple[F32, F32]) -> tuple[F32, F32]:
        """The second in rows that it serves, behind the activation function; rows that share a scale go together."""
        judge = self.q.loss if self.sampled is None else self.sampled.loss
        losses = (judge(codes * each(scale)) * self.gain for codes, scale in (first, second))
        if self.grid.shared:
            losses = (loss.sum(self.grid.shared, keepdims=True) for loss in losses)
        before, after = losses
        takes = np.broadcast_to(after < before, self.gain.shape)
        scales = takes if self.grid.block is None else takes[..., None]
        return np.where(takes[..., None], second[0], first[0]), np.where(scales, second[1], first[1])
