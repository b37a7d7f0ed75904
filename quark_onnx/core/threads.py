"""How many processor cores this process may keep busy: all, or what the one who started it allows."""

from __future__ import annotations

import os

VARIABLE = "QUARK_ONNX_THREADS"
"""The environment variable that limits them: `quark-onnx zoo` runs many models on one machine."""


def allowed_threads() -> int:
    """The limit in the environment; 0 where there is none, which is also how onnxruntime is told to take all."""
    text = os.environ.get(VARIABLE, "")
    return int(text) if text.isdecimal() else 0


def cores() -> int:
    """How many cores there are to use, at least 1."""
    return allowed_threads() or os.cpu_count() or 1
