"""BLAS is held to one thread while we multiply, whoever else does so, too: then any number gives the same bits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from quark_onnx.numerics import matrix_products
from quark_onnx.numerics.matrix_products import gram, one_thread, product

BLAS = ThreadpoolController().select(user_api="blas").lib_controllers
known = pytest.mark.skipif(not BLAS, reason="threadpoolctl does not know this BLAS")


def threads() -> set[int]:
    return {library.num_threads for library in BLAS}


@pytest.fixture
def three() -> Iterator[None]:
    with threadpool_limits(limits=3, user_api="blas"):
        yield


@known
def test_blas_has_one_thread_inside_and_its_own_number_again_behind(three: None) -> None:
    with one_thread():
        assert threads() == {1}
        with one_thread():
            product(np.ones((1, 2, 2)), np.ones((1, 2, 2)))
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {3}
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
    assert threads() == {3}


@known
def test_the_last_of_several_python_threads_gives_the_threads_back(three: None) -> None:
    both_in, one_out = Barrier(2, timeout=10), Barrier(2, timeout=10)

    def first() -> None:
        with one_thread():
            both_in.wait()
        one_out.wait()

    def second() -> set[int]:
        with one_thread():
            both_in.wait()
            one_out.wait()
            return threads()

    with ThreadPoolExecutor(2) as pool:
        done, seen = pool.submit(first), pool.submit(second)
        done.result()
        assert seen.result() == {1}
    assert threads() == {3}


@known
def test_libraries_with_a_number_for_each_python_thread(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread holds its own, whether others do or not."""

    class Own(threading.local):
        num_threads = 3

        def set_num_threads(self, number: int) -> None:
            self.num_threads = number

    own = Own()
    monkeypatch.setattr(matrix_products, "_libraries", lambda: ([], [own]))

    def work(_: int) -> tuple[int, ...]:
        before = own.num_threads
        with one_thread(), one_thread():
            inside = own.num_threads
        return before, inside, own.num_threads

    with ThreadPoolExecutor(4) as pool, one_thread():
        assert set(pool.map(work, range(40))) == {(3, 1, 3)}
        assert own.num_threads == 1
    assert own.num_threads == 3


@known
def test_many_threads_at_once_leave_blas_as_it_was(three: None) -> None:
    def work(_: int) -> bool:
        with one_thread():
            return threads() == {1}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(2000)))
    assert threads() == {3}


def test_any_number_of_blas_threads_gives_the_same_bits() -> None:
    """Sums that OpenBLAS cuts into as many parts as it has threads: long rows, and long products of two vectors."""
    rng = np.random.default_rng(0)
    row, wide = rng.standard_normal((1, 1, 5000)), rng.standard_normal((1, 5000, 400))
    long = rng.standard_normal((2, 20001))
    z = rng.standard_normal((2, 5000, 30)).astype(np.float32)
    found = []
    for count in (1, 2, 4):
        with threadpool_limits(limits=count, user_api="blas"):
            found.append((product(row, wide), product(long[0], long[1]), gram(z, z)))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_blas_that_nobody_knows_multiplies_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_products, "_libraries", lambda: ([], []))
    before = threads()
    with one_thread():
        assert threads() == before
        np.testing.assert_array_equal(product(np.ones((1, 2, 3)), np.ones((1, 3, 2))), np.full((1, 2, 2), 3))
