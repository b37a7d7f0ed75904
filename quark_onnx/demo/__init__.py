"""The demo that ships with the package: a trained digit classifier and the data that it was trained and tested on.

The data are scikit-learn's handwritten digits (UCI "Optical Recognition of Handwritten Digits", 1797 grey images of
8×8 pixels), which come with scikit-learn itself: the demo downloads nothing. `scripts/train_demo.py` made the model.
"""

from quark_onnx.demo.handwritten_digits import MODEL, digits

__all__ = ["MODEL", "digits"]
