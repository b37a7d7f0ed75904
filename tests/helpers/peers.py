"""Other quantizers, where they are installed: they need versions of onnx and torch of their own."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def peer(name: str, module: str) -> ModuleType:
    """The peer's module, or a skip that tells why: it is absent, or what it needs is."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{name} is not usable here: {error}")
