"""Every test here has a deadline: a model on which the quantizer hangs fails its test instead of stopping the run."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import pytest

SECONDS = 120


def _too_late(signum: int, frame: FrameType | None) -> None:
    pytest.fail(f"no result after {SECONDS} s: the quantizer hangs")


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Interrupts Python code; a hang inside a native library ends the run, with a traceback of every thread."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=sys.__stderr__)
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    faulthandler.cancel_dump_traceback_later()
