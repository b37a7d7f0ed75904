"""Damage as disks, transfers and editors make it: the same bytes for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator


def _flips(data: bytearray, rng: Rng) -> bytearray:
    for at in rng.integers(0, len(data), rng.integers(1, 5)):
        data[at] ^= 1 << int(rng.integers(8))
    return data


def _bytes(data: bytearray, rng: Rng) -> bytearray:
    for at in rng.integers(0, len(data), rng.integers(1, 5)):
        data[at] = int(rng.integers(256))
    return data


def _truncated(data: bytearray, rng: Rng) -> bytearray:
    return data[: int(rng.integers(len(data)))]


def _inserted(data: bytearray, rng: Rng) -> bytearray:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 17))) + data[at:]


def _removed(data: bytearray, rng: Rng) -> bytearray:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def _zeroed(data: bytearray, rng: Rng) -> bytearray:
    start, end = _block(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def _repeated(data: bytearray, rng: Rng) -> bytearray:
    start, end = _block(data, rng)
    return data[:end] + data[start:end] * int(rng.integers(1, 4)) + data[end:]


def _moved(data: bytearray, rng: Rng) -> bytearray:
    start, end = _block(data, rng)
    block, rest = data[start:end], data[:start] + data[end:]
    at = int(rng.integers(len(rest) + 1))
    return rest[:at] + block + rest[at:]


def _block(data: bytearray, rng: Rng) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, start + int(rng.integers(1, 65))


KINDS: tuple[Callable[[bytearray, Rng], bytearray], ...] = (
    _flips, _bytes, _truncated, _inserted, _removed, _zeroed, _repeated, _moved
)  # fmt: skip


def mutated(data: bytes, seed: int) -> bytes:
    """The bytes with one kind of damage; the kinds take turns."""
    return bytes(KINDS[seed % len(KINDS)](bytearray(data), np.random.default_rng(seed)))
