"""AIMET's encodings files, read and written, and the plan that they stand for.

    encoding_values    an encoding, a file of them, and what a file could not hold
    json_fields        fields of a JSON object, checked one by one
    reading            0.4.0, 0.5.0, 0.6.1, 1.0.0 and 2.0.0 → values, every field checked
    writing            values → 0.6.1, 1.0.0 or 2.0.0, with the list of what the version cannot hold
    other_conventions  the same grids the way a default AIMET simulation has them
    plan_to_encodings  plan → values
    scale_layout       values → formats, scales and zero points of a tensor with a shape
    encodings_to_plan  values → plan

Signs: AIMET counts codes from 0 and has x = (q + offset) · scale with offset ≤ 0, in 0.6.1 and 1.0.0 also for signed
types; 2.0.0 has the zero point of ONNX. So offset = −zero point of the unsigned type, and the zero point of the signed
type is 2^(bits − 1) less than that.
"""

from quark_onnx.encodings.encoding_values import Encoding, EncodingFile, Loss
from quark_onnx.encodings.encodings_to_plan import Merged, into_plan, to_sites
from quark_onnx.encodings.other_conventions import adapted
from quark_onnx.encodings.plan_to_encodings import from_plan
from quark_onnx.encodings.reading import read
from quark_onnx.encodings.scale_layout import Axes, Shapes, with_axes
from quark_onnx.encodings.writing import document, losses, write

__all__ = [
    "Axes",
    "Encoding",
    "EncodingFile",
    "Loss",
    "Merged",
    "Shapes",
    "adapted",
    "document",
    "from_plan",
    "into_plan",
    "losses",
    "read",
    "to_sites",
    "with_axes",
    "write",
]
