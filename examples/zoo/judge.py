"""An evaluator: how often a model says the same as the float one. With labels it would be accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

HERE = Path.cwd()  # evaluators run in the folder of the manifest


def agreement(model: str) -> float:
    """Part of new samples that get the winner that the float model gives them."""
    float_model = HERE / "models" / "lenet.onnx"
    x = np.random.default_rng(7).normal(size=(256, 3, 16, 16)).astype(np.float32)
    winners = [ort.InferenceSession(str(path)).run(None, {"x": x})[0].argmax(1) for path in (model, float_model)]
    return float((winners[0] == winners[1]).mean())
