"""Simulate an ImageNet classifier: `python simulate_mobilenet.py MODEL.onnx CALIBRATION.npz TEST.npz`.

CALIBRATION.npz holds the array `input`, TEST.npz also `labels`. Prints the accuracy of the float model, and of the
simulation with 8 bits and one scale per tensor: as it is, equalized, and with AdaRound; writes the last one to `out/`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime

from quark_onnx.quantsim import (
    Adaround,
    AdaroundParameters,
    QuantizationSimModel,
    equalize_model,
    fold_all_batch_norms,
)

PER_TENSOR = "default_per_tensor"  # a configuration of ours; a path to one of AIMET's files does as well


def accuracy(session: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose class has the highest score."""
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: images[i : i + 1]})[0].argmax() for i in range(len(images))]
    return float((np.array(found) == labels).mean())


def main(path: str, calibration: str, test: str) -> None:
    """From float to AdaRound."""
    samples = list(np.load(calibration)["input"][:, None])
    images, labels = (np.load(test)[key] for key in ("input", "labels"))
    float_session = onnxruntime.InferenceSession(path)
    print(f"float: {accuracy(float_session, images, labels):.3f}")

    model = fold_all_batch_norms(onnx.load(path))
    for step in ("rounded to nearest", "equalized", "AdaRound"):
        if step == "equalized":
            equalize_model(model, samples)
        if step == "AdaRound":
            params = AdaroundParameters(samples, num_batches=len(samples))
            model = Adaround.apply_adaround(model, None, params, "out", "adaround", 8, default_config_file=PER_TENSOR)
        sim = QuantizationSimModel(model, config_file=PER_TENSOR)
        if step == "AdaRound":
            sim.set_and_freeze_param_encodings("out/adaround.encodings")
        sim.compute_encodings(samples)
        print(f"{step}: {accuracy(sim.session, images, labels):.3f}")
    sim.export("out", "mobilenet")


if __name__ == "__main__":
    main(*sys.argv[1:])
