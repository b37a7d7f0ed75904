"""Matrix products that BLAS computes on the calling thread.

OpenBLAS hands a large product to its own threads. They wait for each other in a busy loop, so on a machine with other
work a product takes 10 to 100 times longer (measured: 33 ms for 0.16 ms), workers of ours that multiply at the same
time fight over them, and how a sum is cut into parts depends on how many there are. So BLAS is held to one thread while
we multiply, and results are the same for any number of threads. A BLAS that threadpoolctl does not know (Accelerate on
macOS, which decides by itself) multiplies as it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import OpenBLASController, ThreadpoolController

Real = TypeVar("Real", np.float32, np.float64)

PRECISE = 2**12
"""Longest float32 sum inside `gram`: of n terms it is off by at most min(n, 2¹²) · 2⁻²⁴ of Σ of the magnitudes."""


class _Held:
    """Who holds BLAS now, in whatever thread, and how many threads each library had before the first of them."""

    lock = Lock()
    count = 0
    before: tuple[int, ...] = ()


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS keeps to the calling thread until this is left, and in the whole process until the last one has left.

    `product` and `gram` ask by themselves; who calls numpy's linear algebra, or these very often, asks once around it.
    """
    whole, own = _libraries()
    mine = _set_threads(own, [1] * len(own)) if own else ()
    with _Held.lock:
        if not _Held.count:
            _Held.before = _set_threads(whole, [1] * len(whole))
        _Held.count += 1
    try:
        yield
    finally:
        with _Held.lock:
            _Held.count -= 1
            if not _Held.count:
                _set_threads(whole, _Held.before)
        if own:
            _set_threads(own, mine)


def _set_threads(libraries: Sequence[Any], numbers: Sequence[int]) -> tuple[int, ...]:
    """How many there were. OpenBLAS listens to that Python thread alone which spoke first, until that is cleared."""
    before = tuple(library.num_threads for library in libraries)
    for library, old, new in zip(libraries, before, numbers, strict=True):
        if old != new:
            OpenBLASController.clear_controlling_thread(force=True)
            library.set_num_threads(new)
            OpenBLASController.clear_controlling_thread(force=True)
    return before


@lru_cache(maxsize=1)
def _libraries() -> tuple[list[Any], list[Any]]:
    """Those with one number of threads for the process, and those (built on OpenMP) with one for each Python thread."""
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in found if getattr(library, "threading_layer", "") == "openmp"]
    return [library for library in found if library not in own], own


def product(a: NDArray[Real], b: NDArray[Real]) -> NDArray[Real]:
    """a @ b, as numpy defines it: (G, M, K) @ (G, K, N) → (G, M, N), and all other numbers of axes."""
    with one_thread():
        return a @ b


def gram(a: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """aᵀb summed over positions: (G, n, A), (G, n, B) → (G, A, B) in float64, into `out` where it is given.

    Symmetric where b is a: then numpy has half of it computed.
    """
    found = np.empty((a.shape[0], a.shape[2], b.shape[2])) if out is None else out
    found[...] = 0
    left = np.swapaxes(a, 1, 2)
    with one_thread():
        for start in range(0, a.shape[1], PRECISE):
            part = slice(start, start + PRECISE)
            found += left[..., part] @ b[:, part]
    return found
