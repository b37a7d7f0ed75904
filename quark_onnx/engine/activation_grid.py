"""The grid of an activation, read from a QDQ model of any tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import TYPES
from quark_onnx.engine.compare import Quantized
from quark_onnx.graph import Value
from quark_onnx.graph.view import constant, input_at, is_op


@dataclass(frozen=True)
class Grid:
    """v ≈ (q − zero_point) · scale for the codes q from `lo` to `hi`, stored as `dtype`."""

    dtype: str
    scale: float
    zero_point: int
    lo: int
    hi: int

    @property
    def bits(self) -> int:
        """How many bits its codes need."""
        return (self.hi - self.lo).bit_length()

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest real value."""
        return (self.lo - self.zero_point) * self.scale, (self.hi - self.zero_point) * self.scale

    def rounded(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The values as they are after quantizing."""
        codes = np.rint(values.astype(np.float32) / np.float32(self.scale)) + self.zero_point
        return np.asarray((np.clip(codes, self.lo, self.hi) - self.zero_point) * np.float32(self.scale))


def grid(activation: Quantized) -> Grid | None:
    """The grid; None where it has several scales, or they are computed while the model runs."""
    scale, zero = (input_at(activation.quantizer, index) for index in (1, 2))
    number = constant(scale)
    if number is None or number.size != 1:
        return None
    offset = 0 if zero is None else constant(zero)
    dtype = _dtype(activation, zero)
    if offset is None or dtype not in TYPES:
        return None
    bits, signed = TYPES[dtype]
    lo = -(1 << (bits - 1)) if signed else 0
    found = Grid(dtype, float(number.reshape(-1)[0]), int(np.asarray(offset).reshape(-1)[0]), lo, lo + (1 << bits) - 1)
    return _clipped(found, activation)


def _dtype(activation: Quantized, zero: Value | None) -> str:
    """Name of the type of the codes: that of the zero point, or of the attribute, or the default."""
    if zero is not None and zero.const_value is not None:
        return zero.const_value.dtype.name.lower()
    asked = activation.quantizer.attributes.get_int("output_dtype", 0)
    return {3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4"}.get(asked, "uint8")


def _clipped(found: Grid, activation: Quantized) -> Grid:
    """The grid without the codes that a Clip in front of the quantizer leaves out."""
    value = activation.quantizer.inputs[0]
    clip = None if value is None else value.producer()
    if clip is None or not is_op(clip, "Clip") or clip.outputs[0] is activation.source:
        return found
    ends = [constant(input_at(clip, index)) for index in (1, 2)]
    codes = [None if e is None else round(float(e.reshape(-1)[0]) / found.scale) + found.zero_point for e in ends]
    lo = found.lo if codes[0] is None else max(found.lo, codes[0])
    hi = found.hi if codes[1] is None else min(found.hi, codes[1])
    return Grid(found.dtype, found.scale, found.zero_point, lo, hi)
