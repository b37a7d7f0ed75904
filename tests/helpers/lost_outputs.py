"""Models with an output that 8 bits ruin, and samples of them; with other numbers, their twins, which they do not."""

from __future__ import annotations

import numpy as np
import onnx
from text_models import normal, text_model

Feeds = list[dict[str, np.ndarray]]


def power_spectrum(offset: float = 1e-9) -> tuple[onnx.ModelProto, Feeds]:
    """A filter bank, its power, a logarithm, and a layer behind it: loud samples, and quiet ones whose power is lost.

    offset: what is added in front of the logarithm; with 100 there is nothing left to amplify.
    """
    text = """g (float[1,8,1,32] x) => (float[1,4,1,32] y) {
        [bank] h = Conv (x, f)
        [power] p = Mul (h, h)
        [floor] s = Add (p, o)
        [log] l = Log (s)
        [head] y = Conv (l, w)
    }"""
    weights = {"f": 0.4 * normal(16, 8, 1, 1), "w": 0.3 * normal(4, 16, 1, 1)}
    model = text_model(text, o=np.float32(offset), **weights)
    return model, [{"x": normal(1, 8, 1, 32, seed=i) * np.float32(10.0 ** -(i % 4))} for i in range(8)]


def uneven_channels(factor: float = 3000.0) -> tuple[onnx.ModelProto, Feeds]:
    """A depthwise layer with one channel whose weights are so many times the others, clipped behind it."""
    text = """g (float[1,8,8,8] x) => (float[1,8,8,8] y) {
        [depthwise] h = Conv <group = 8, pads = [1,1,1,1]> (x, d)
        [clip] s = Clip (h, low, high)
        [point] y = Conv (s, w)
    }"""
    d = normal(8, 1, 3, 3)
    d[0] *= factor
    ends = {"low": np.float32(0), "high": np.float32(6)}
    return text_model(text, d=d, w=normal(8, 8, 1, 1), **ends), [{"x": normal(1, 8, 8, 8, seed=i)} for i in range(8)]
