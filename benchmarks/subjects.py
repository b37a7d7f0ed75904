"""What is quantized and scored, the tasks of `tasks.py` and the models of `real.py`, under one name each.

`python benchmarks/subjects.py SUBJECT MODEL.onnx` prints how good a model is, as run (`ort`) and as written (`raw`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import real
import tasks

LEAST = 1e-30
"""Stands for a probability of 0 in front of a logarithm."""


Feeds = list[dict[str, np.ndarray[Any, Any]]]
Run = Callable[[Path, Feeds], list[list[np.ndarray[Any, Any]]]]
"""The outputs of a model for each feed."""


def material(subject: str, samples: int) -> tuple[Path, Feeds]:
    """The float model, and what calibrates it, one sample each."""
    if subject in tasks.TASKS:
        return tasks.TASKS[subject].model, tasks.TASKS[subject].calib(samples)
    return real.MODELS[subject].path(), real.MODELS[subject].calibration()[:samples]


def scores(subject: str, model: Path) -> dict[str, dict[str, float]]:
    """By `ort` and `raw`; of a real model, `sqnr_db` is that of its worst output. `kl` is there for classifiers."""
    if subject in tasks.TASKS:
        return {kind: _task_scores(subject, model, kind == "ort", tasks._run) for kind in ("ort", "raw")}
    found = real.evaluate(subject, str(model))
    parts = {"ort": found["as_run"], "raw": found["as_written"]}
    return {kind: {**part, "sqnr_db": min(part.pop("db").values())} for kind, part in parts.items()}


def scores_in(run: Run, subject: str, model: Path) -> dict[str, float]:
    """As something else than onnxruntime runs it, and the float model, which it is compared with."""

    def first(path: Path, _: bool, feeds: Feeds) -> np.ndarray[Any, Any]:
        return np.concatenate([outputs[0] for outputs in run(Path(path), feeds)])

    if subject in tasks.TASKS:
        return _task_scores(subject, model, True, first)
    known = real.MODELS[subject]
    reference, got = (run(path, known.evaluation()) for path in (known.path(), model))
    ratios = [tasks.sqnr_db(_all(reference, which), _all(got, which)) for which in range(len(got[0]))]
    return {**known.task(reference, got), "sqnr_db": min(ratios)}


def _all(outputs: list[list[np.ndarray[Any, Any]]], which: int) -> np.ndarray[Any, Any]:
    return np.concatenate([arrays[which].ravel() for arrays in outputs])


def _task_scores(subject: str, model: Path, optimized: bool, run: Callable[..., Any]) -> dict[str, float]:
    """What the task says of outputs that `run` makes, which it keeps to itself: they are seen as they pass."""
    seen, own = [], tasks._run

    def watched(*given: Any) -> Any:
        seen.append(run(*given))
        return seen[-1]

    tasks._run = watched
    found: dict[str, float] = tasks.TASKS[subject].score(model, optimized)
    tasks._run = own
    return {**found, "kl": divergence(*seen)} if "agree" in found else found


def divergence(reference: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Kullback and Leibler's, in nats, of the distributions over classes: the mean over rows of two sets of logits."""
    p, q = _softmax(reference), _softmax(other)
    return float((p * np.log(np.maximum(p, LEAST) / np.maximum(q, LEAST))).sum(1).mean())


def _softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


if __name__ == "__main__":
    print(json.dumps(scores(sys.argv[1], Path(sys.argv[2]))))
