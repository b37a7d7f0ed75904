"""Train a model of 4 bits, weights and activations: `python train_low_bits.py`.

Quantizes the model of digits that comes with the package with one scale for each weight: rounded to the nearest, with
AdaRound, and trained with the labels of 1,198 images. Ctrl-C during the last keeps the best model so far; run again, it
goes on from where it was.
Needs `pip install 'quark-onnx[demo]'`.
"""

from __future__ import annotations

from dataclasses import replace

import onnxruntime

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.demo import MODEL, digits

TRAINING = {"checkpoint": "training_of_digits.npz"}  # what differs from the defaults, see docs/training.md


def main() -> None:
    """Quantize three times, and count right answers on images that nothing was learned of."""
    images, labels, test_images, test_labels = digits()

    def right(model: object) -> float:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return float((session.run(None, {"input": test_images})[0].argmax(1) == test_labels).mean())

    print(f"float: {right(MODEL):.3f}")
    for preset in ("S4S4_AAWS", "S4S4_AAWS_ADAROUND"):
        ModelQuantizer(get_default_config(preset)).quantize_model(MODEL, "rounded.onnx", images)
        print(f"{preset}: {right('rounded.onnx'):.3f}")

    config = get_default_config("S4S4_AAWS_QAT")
    config = replace(config, extra_options={**config.extra_options, "QAT": TRAINING})
    ModelQuantizer(config).quantize_model(MODEL, "trained.onnx", images, labels=labels)
    print(f"S4S4_AAWS_QAT: {right('trained.onnx'):.3f}")


if __name__ == "__main__":
    main()
