"""The real models and the one accuracy protocol, where they are present beside the repository."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2].parent / "shared" / "bench" / "tasks.py"


@pytest.fixture(scope="session")
def protocol() -> ModuleType:
    """The module `bench/tasks.py`: tasks by name, calibration feeds, scores."""
    if not BENCH.is_file():
        pytest.skip(f"{BENCH} is absent: the real models are not on this machine")
    spec = importlib.util.spec_from_file_location("tasks", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tasks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    decode = cache(module.imagenet)  # 800 JPEG files take three seconds, and each score reads them
    module.imagenet = lambda classes: decode(tuple(classes))  # type: ignore[attr-defined]
    return module
