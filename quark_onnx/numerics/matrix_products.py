"""Matrix products in tiles that BLAS computes on the calling thread.

OpenBLAS hands a large product to its own threads. They wait for each other in a busy loop, so on a machine with other
work a product takes 10 to 100 times longer (measured: 33 ms for 0.16 ms), and workers of ours that multiply at the same
time fight over them. Products of fewer than `LIMIT` multiplications stay on one thread (OpenBLAS, interface/gemm.c:
a second one starts at 2 · 65536 · 4). With tiles of a fixed size in a fixed order the result also does not depend on
how many threads BLAS or we have. On an idle machine with one BLAS thread the tiles cost up to half of its speed.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)

LIMIT = 2**19 - 1
"""Multiplications in one tile."""

VECTOR = 9000
"""The same for a product with a vector (interface/gemv.c: 2304 · 4)."""

DEPTH = 256
"""Longest sum inside a tile of `product`."""

PRECISE = 128
"""Longest float32 sum inside `gram`; it is off by at most 128 · 2⁻²⁴ of the sum of the magnitudes."""

SIDE = 64
"""Rows of a tile: with fewer it waits for memory, with more it gets too narrow."""


def product(a: NDArray[Real], b: NDArray[Real]) -> NDArray[Real]:
    """(G, M, K) @ (G, K, N) → (G, M, N)."""
    (groups, m, k), n = a.shape, b.shape[-1]
    if m * k * n <= _limit(m, n):
        return a @ b
    out = np.zeros((groups, m, n), a.dtype)
    for rows, inner, columns in _tiles(m, k, n, DEPTH):
        if k <= DEPTH:
            np.matmul(a[:, rows], b[:, :, columns], out=out[:, rows, columns])
        else:
            out[:, rows, columns] += a[:, rows, inner] @ b[:, inner, columns]
    return out


def gram(a: NDArray[np.float32], b: NDArray[np.float32], symmetric: bool = False) -> NDArray[np.float64]:
    """aᵀb summed over positions: (G, n, A), (G, n, B) → (G, A, B) in float64.

    symmetric: the result is known to be (b is a, or a with a weight per position); half of it is computed.
    """
    out = np.zeros((a.shape[0], a.shape[2], b.shape[2]))
    left = np.swapaxes(a, 1, 2)
    for rows, inner, columns in _tiles(a.shape[2], a.shape[1], b.shape[2], PRECISE):
        if not symmetric or columns.start < rows.stop:
            out[:, rows, columns] += left[:, rows, inner] @ b[:, inner, columns]
    if symmetric:
        lower = np.tril(out)
        out = lower + np.swapaxes(np.tril(out, -1), 1, 2)
    return out


def _limit(m: int, n: int) -> int:
    return VECTOR if min(m, n) == 1 else LIMIT


@lru_cache(maxsize=1024)
def _tiles(m: int, k: int, n: int, depth: int) -> tuple[tuple[slice, slice, slice], ...]:
    """(rows, inner, columns) of the tiles of an (M, K) @ (K, N) product, always in the same order."""
    inner = min(k, depth)
    side = min(m, SIDE if n > 1 else max(SIDE, VECTOR // max(1, inner)))
    columns = _cuts(n, _limit(m, n) // max(1, side * inner))
    return tuple(itertools.product(_cuts(m, side), _cuts(k, depth), columns))


def _cuts(length: int, step: int) -> list[slice]:
    """0..length in parts of nearly equal size, none longer than `step`."""
    count = max(1, -(-length // max(1, step)))
    edges = [length * i // count for i in range(count + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]
