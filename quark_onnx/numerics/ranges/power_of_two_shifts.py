"""Positions of power-of-two scales, and the shifts that integer hardware makes of them.

A scale 2⁻ᵖ has the position p. A product of codes at i and w is at i + w; to write it at o it is shifted by i + w − o
bits. Shifters have few bits, so positions must lie near each other. The limits are those of AMD's NPUs, from Quark's
XINT8 pass. Here a position only ever goes down, its scale up: values get coarser, and none is clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FREE = 118
"""The highest position of a normal scale: that of a tensor that holds zeros only, which is exact at any scale."""

CUT = 16
"""Bits that the sum of products of a layer may be shifted by, downwards only."""

BIAS_UP, SUM = 15, 24
"""Bits that a bias may be shifted up by; bits of the sum, which cut and bias must leave room for the 8 of a code."""

READ = 7
"""Bits by which the terms of an addition may differ."""

ADD_UP, ADD_DOWN, MUL_DOWN, SWISH_DOWN = 7, 25, 32, 15
"""Bits by which a result may be shifted: of an addition, of a product, of x · sigmoid(x)."""

SIGMOID_IN = 15
"""The highest position of the input of a HardSigmoid."""


def position(scale: NDArray[Any]) -> int | None:
    """p of a scale 2⁻ᵖ; None for any other, and for several."""
    if scale.size != 1:
        return None
    mantissa, exponent = np.frexp(scale.item())
    return 1 - int(exponent) if mantissa == 0.5 else None


def layer(data: int, weight: int, output: int, bias: int | None = None) -> tuple[int, int, int | None]:
    """Positions of weight, output and bias of a convolution or product of matrices.

    cut = data + weight − output is in 0..16; data + weight − bias in min(0, cut − 16)..15.
    """
    weight = min(weight, output + CUT - data)
    if bias is not None:
        weight = min(weight, bias + BIAS_UP - data)
    output = min(output, data + weight)
    return weight, output, None if bias is None else min(bias, output + SUM - 8)


def added(terms: Sequence[int], output: int) -> tuple[tuple[int, ...], int]:
    """Positions of the terms and of the result of an addition.

    All terms are at most 7 above the lowest; lowest − output is in −7..25.
    """
    lowest = min(min(terms), output + ADD_DOWN)
    at = terms.index(min(terms))
    moved = tuple(lowest if i == at else min(term, lowest + READ) for i, term in enumerate(terms))
    return moved, min(output, lowest + ADD_UP)


def multiplied(factors: Sequence[int], output: int, most: int = MUL_DOWN) -> tuple[tuple[int, ...], int]:
    """Positions of the factors and of the result of a product: sum of the factors − output is in 0..`most`."""
    moved = list(factors)
    while sum(moved) - output > most:
        moved[moved.index(max(moved))] -= 1
    return tuple(moved), min(output, sum(moved))
