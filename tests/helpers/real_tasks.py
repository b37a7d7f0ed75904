"""The one accuracy protocol, where it is present beside the repository."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
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


def sentences(protocol: ModuleType, count: int) -> list[dict[str, np.ndarray]]:
    """What MiniLM is calibrated on, without the padding, which is most of it and changes nothing."""
    feeds = protocol.TASKS["minilm-stsb"].calib(count)
    return [{name: array[:, : feed["attention_mask"].sum()] for name, array in feed.items()} for feed in feeds]


def some_answers(
    protocol: ModuleType, task: str, model: Path, optimized: bool = True, every: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a part of the test images: as onnxruntime runs a classifier, or as it is written."""
    if task == "resnet20-cifar10":
        data = np.load(protocol.ASSETS / "cifar10.npz")
        images, labels = protocol._cifar(data["test"][::every]), data["label"][::every]
    else:
        labels = np.flatnonzero(np.arange(1000) % 5)
        images, labels = protocol.imagenet(labels)[::every], labels[::every]
    feeds = [{"input": images[start : start + 50]} for start in range(0, len(images), 50)]
    return protocol._run(model, optimized, feeds), labels


def top_1(protocol: ModuleType, task: str, model: Path) -> float:
    """The share of right answers among them, as run."""
    logits, labels = some_answers(protocol, task, model)
    return float((logits.argmax(1) == labels).mean())


def assert_runs_as_written(protocol: ModuleType, task: str, model: Path) -> None:
    """By the noise of the logits of 200 images, to which ties add a little: to score the arithmetic as written takes
    thrice as long as to run it. Measured: at most .04 dB; top-1 of 800 images moves by the flip of any answer.
    """
    every = 20 if task == "resnet20-cifar10" else 4
    want, run, written = (
        some_answers(protocol, task, path, optimized, every)[0]
        for path, optimized in ((protocol.TASKS[task].model, True), (model, True), (model, False))
    )
    assert abs(protocol.sqnr_db(want, run) - protocol.sqnr_db(want, written)) <= 0.2
