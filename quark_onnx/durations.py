"""Durations as people write them: 90, 90s, 15m, 1.5h."""

from __future__ import annotations

import re
from typing import Any

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(value: Any) -> float | None:
    """90, "90s", "15m" or "1.5h" in seconds; None for anything else, and for zero."""
    if isinstance(value, bool):
        return None
    found = _DURATION.fullmatch(str(value))
    return float(found[1]) * _SECONDS[found[2]] or None if found else None
