"""scikit-learn's handwritten digits, and the model that was trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from quark_onnx.core.errors import DataError

MODEL = Path(__file__).with_name("digits.onnx")
"""Float32 model: `input` (batch, 1, 8, 8) -> `logits` (batch, 10)."""

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def digits() -> tuple[Images, Labels, Images, Labels]:
    """The digits as `(train_x, train_y, test_x, test_y)`: images (N, 1, 8, 8) float32 in [-1, 1], labels (N,) int64.

    The split is by position in `load_digits()`: a sample whose index is divisible by 3 is a test sample (0, 3, 6, …;
    599 of them), every other one is a training sample (1198). The grey values 0..16 become `grey / 8 - 1`.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the demo data come with scikit-learn, which cannot be imported; pip install 'quark-onnx[demo]'"
        ) from error
    data = load_digits()
    images = (np.asarray(data.images, dtype=np.float32) / 8 - 1)[:, None]
    labels = np.asarray(data.target, dtype=np.int64)
    test = np.arange(len(labels)) % 3 == 0
    return images[~test], labels[~test], images[test], labels[test]
