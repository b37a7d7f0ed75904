"""Free memory goes back to the system behind each stage, where the C library can do that."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from quark_onnx.clock import Clock, unseen
from quark_onnx.engine import returned_memory


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    returned_memory._trim.cache_clear()
    yield
    returned_memory._trim.cache_clear()


def test_every_stage_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=kept.append))
    clock = Clock(unseen)
    for name in ("one", "two"):
        with clock.stage(name):
            pass
    assert kept == [0, 0]


@pytest.mark.parametrize("error", [OSError, TypeError, None])
def test_other_libraries_are_left_alone(error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def library(_: Any) -> Any:
        if error is not None:
            raise error
        return SimpleNamespace()

    monkeypatch.setattr(ctypes, "CDLL", library)
    returned_memory.give_back()
