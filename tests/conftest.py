"""For all tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from hypothesis import settings

from quark_onnx.core.threads import VARIABLE, cores

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ[VARIABLE] = str(max(1, cores() // workers))  # if each kept all cores busy, the suite would take longer

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it for its workers, and rich takes the first it sees for good

if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):  # each child would compile the package, for half a second
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")

settings.register_profile("suite", settings(), deadline=None)  # no test measures time
settings.load_profile("suite")

gc.disable()  # while tests are collected: none of it is garbage, and to look through it takes each worker 5 seconds


def pytest_collection_finish() -> None:
    """Garbage is looked for among what tests make."""
    gc.freeze()
    gc.enable()
