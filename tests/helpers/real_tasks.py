"""The one accuracy protocol, where it is present beside the repository."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROTOCOL = Path(__file__).parents[2].parent / "shared" / "bench" / "tasks.py"


def protocol_module() -> ModuleType:
    """The module `bench/tasks.py`, anew at each call: tasks by name, calibration feeds, scores. Or a skip."""
    if not PROTOCOL.is_file():
        pytest.skip(f"{PROTOCOL} is absent: the real models are not on this machine")
    spec = importlib.util.spec_from_file_location("tasks", PROTOCOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tasks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
