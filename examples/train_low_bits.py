"""Train a model of 4-bit weights and activations: `python train_low_bits.py [EPOCHS]`.

Quantizes the model of digits that comes with the package, with one scale for each weight: rounded to the nearest, and
trained from there with the labels of 1,198 images. Ctrl-C keeps the best so far; run again, it goes on from where it
was. Needs `pip install 'quark-onnx[demo]'`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import onnxruntime

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.demo import MODEL, digits


def main(epochs: str = "20") -> None:
    """Quantize twice, and count right answers on images that nothing was learned of."""
    images, labels, test_images, test_labels = digits()
    training = {"epochs": int(epochs), "checkpoint": "training_of_digits.npz"}  # what differs from the defaults
    preset = get_default_config("S4S4_AAWS")
    rounded = replace(preset, extra_options={**preset.extra_options, "Protect": False})
    trained = replace(rounded, extra_options={**rounded.extra_options, "QAT": training})

    def right(model: Any) -> float:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return float((session.run(None, {"input": test_images})[0].argmax(1) == test_labels).mean())

    print(f"float: {right(MODEL):.3f}")
    ModelQuantizer(rounded).quantize_model(MODEL, "rounded.onnx", images)
    print(f"rounded: {right('rounded.onnx'):.3f}")

    result = ModelQuantizer(trained).quantize_model(MODEL, "trained.onnx", images, labels=labels)
    for point in result.report.trained.curve:  # loss and right answers on a tenth of the images, which only judges
        print(f"step {point.step}: {point.held:.4f}, {point.metric:.1%} right")
    print(f"trained: {right('trained.onnx'):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
