"""Whether onnxruntime's u8 × s8 kernels saturate on this machine.

Without VNNI, x64 multiplies 8-bit integers with vpmaddubsw, which adds two neighbouring products in int16 and clips the
sum to ±32,767. What runs is then not what the file says. The machine is asked, not its flags: which kernel runs is
onnxruntime's choice.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime as ort
from onnx_text import parse_model

DEPTH = 64
"""Products of one sum: more than any kernel adds at a time."""


@lru_cache
def kernels_saturate() -> bool:
    """Whether a sum of the largest products, u8 × s8, comes out smaller than it is."""
    codes = ",".join(["127"] * DEPTH)
    model = parse_model(
        f"""<ir_version: 8, opset_import: ["": 13]> g (uint8[1,{DEPTH}] x) => (int32[1,1] y)
        <int8[{DEPTH},1] w = {{{codes}}}> {{ y = MatMulInteger (x, w) }}"""
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, DEPTH), 255, np.uint8)})
    return int(found[0, 0]) != DEPTH * 255 * 127
