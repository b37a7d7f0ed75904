"""The real models and the one accuracy protocol, where they are present beside the repository.

Scores are the protocol's to the last answer, and take less time: images are decoded once, float models run once, and
sentences without the columns that are padding in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from real_tasks import protocol_module

from quark_onnx.core.threads import allowed_threads

Feeds = Sequence[dict[str, Any]]


@pytest.fixture(scope="session")
def protocol() -> ModuleType:
    """The module `bench/tasks.py`: tasks by name, calibration feeds, scores."""
    module = protocol_module()
    decode = cache(module.imagenet)  # 800 JPEG files take three seconds, and each score reads them
    module.imagenet = lambda classes: decode(tuple(classes))  # type: ignore[attr-defined]
    module._session = _session  # type: ignore[attr-defined]
    module._run = _Runs(module.ASSETS).outputs  # type: ignore[attr-defined]
    return module


def _session(path: Path, optimized: bool) -> ort.InferenceSession:
    """As the protocol's, on this worker's share of the cores."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = allowed_threads()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class _Runs:
    """First outputs of models for many feeds; those of the float models in `assets` are kept."""

    def __init__(self, assets: Path) -> None:
        self.assets = assets
        self.floats: dict[Any, np.ndarray] = {}

    def outputs(self, path: Path, optimized: bool, feeds: Feeds) -> np.ndarray:
        """As the protocol's `_run`."""
        if self.assets not in Path(path).parents:
            return _outputs(_session(path, optimized), feeds)
        key = path, optimized, len(feeds), *(hash(array.tobytes()) for array in feeds[0].values())
        if key not in self.floats:
            self.floats[key] = _outputs(_session(path, optimized), feeds)
        return self.floats[key]


def _outputs(session: ort.InferenceSession, feeds: Feeds) -> np.ndarray:
    if "attention_mask" not in feeds[0]:
        return np.concatenate([session.run(None, feed)[0] for feed in feeds])
    whole = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    lengths = whole["attention_mask"].sum(1)
    order = np.argsort(lengths, kind="stable")
    parts = []
    for rows in np.array_split(order, len(feeds)):
        feed = {name: array[rows, : lengths[rows].max()] for name, array in whole.items()}
        parts.append(session.run(None, feed)[0])
    return np.concatenate(parts)[np.argsort(order, kind="stable")]
