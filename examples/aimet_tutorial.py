"""AIMET's AdaRound tutorial, step by step: `python aimet_tutorial.py`.

On the model of digits that comes with the package; it writes `out/digits.onnx` and `out/digits.encodings` for
Qualcomm's tools, and `out/digits_qdq.onnx` for onnxruntime. Needs `pip install 'quark-onnx[demo]'`.
"""

from __future__ import annotations

from typing import Any

import onnx

from quark_onnx.demo import MODEL, digits
from quark_onnx.quantsim import (
    Adaround,
    AdaroundParameters,
    QuantizationSimModel,
    QuantScheme,
    equalize_model,
    fold_all_batch_norms,
)

train_x, _, test_x, test_y = digits()
loader = [train_x[i : i + 32] for i in range(0, 256, 32)]
PARAM_BW, OUTPUT_BW = 4, 8


def pass_calibration_data(session: Any, batches: int) -> None:
    """The forward pass that encodings of activations are computed on."""
    for batch in loader[:batches]:
        session.run(None, {"input": batch})


def accuracy(session: Any) -> float:
    """Share of the test digits that are recognized."""
    (logits,) = session.run(None, {"input": test_x})
    return float((logits.argmax(1) == test_y).mean())


def main() -> None:
    """The steps of the tutorial."""
    model = onnx.load(MODEL)
    fold_all_batch_norms(model)
    equalize_model(model, loader)

    params = AdaroundParameters(loader, num_batches=len(loader))
    model = Adaround.apply_adaround(model, params, "out", "adaround", default_param_bw=PARAM_BW)

    scheme = QuantScheme.post_training_tf_enhanced
    sim = QuantizationSimModel(model, quant_scheme=scheme, default_param_bw=PARAM_BW, default_output_bw=OUTPUT_BW)
    sim.set_and_freeze_param_encodings("out/adaround.encodings")
    sim.compute_encodings(pass_calibration_data, len(loader))
    print(f"simulated: {accuracy(sim.session):.4f}")

    sim.export("out", "digits")
    onnx.save(sim.to_onnx_qdq(), "out/digits_qdq.onnx")


if __name__ == "__main__":
    main()
