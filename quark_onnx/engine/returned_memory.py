"""Memory that is free goes back to the system.

glibc keeps what lies between blocks that are still in use, and sessions and activations leave much of it: behind the
protection of a sentence model 570 MB, of which 255 are in use.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Have the C library return what is free; where it is not glibc nothing is done."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # no such function, and on Windows no such library
        return None
