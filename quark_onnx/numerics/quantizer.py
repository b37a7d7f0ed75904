"""The quantizer: q = clamp(round_half_even(v / s) + z, lo, hi),   v̂ = (q − z) · s."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams

SMALLEST_SCALE = np.finfo(np.float32).tiny * 2**8
"""Below this a scale is no longer a normal number in products such as input scale · weight scale."""


def along(parameter: NDArray[Any], shape: tuple[int, ...], format: Format) -> NDArray[Any]:
    """A scale or zero point shaped so that it broadcasts over an array of `shape`.

    Per-tensor it is a scalar, per-channel a vector along `axis`; with blocks it has the array's rank and
    ⌈size / block⌉ entries along `axis`, as ONNX's DequantizeLinear has it.
    """
    if format.axis is None or parameter.ndim == 0:
        return parameter
    if format.block:
        wide = np.repeat(parameter, format.block, axis=format.axis)
        return np.take(wide, range(shape[format.axis]), axis=format.axis)
    broad = [1] * len(shape)
    broad[format.axis] = -1
    return parameter.reshape(broad)


def scale_shape(shape: tuple[int, ...], format: Format) -> tuple[int, ...]:
    """The shape that the scales of an array have."""
    if format.axis is None:
        return ()
    if format.block:
        return tuple(-(-n // format.block) if i == format.axis else n for i, n in enumerate(shape))
    return (shape[format.axis],)


def qparams(lo: NDArray[np.floating] | float, hi: NDArray[np.floating] | float, format: Format) -> QParams:
    """Scale and zero point for values in [lo, hi], one pair or one per channel or block.

    The range is widened to contain 0. A range of zero width (all values 0) gets scale 1: nothing can be said, and
    every value is exact. The scale is a float32 that is finite and normal; powers of two and float16 scales are the
    next ones up, so that nothing in the range is clipped. A symmetric grid spans both ends: max(hi / codes above the
    middle, −lo / codes below it), as AIMET has it.
    """
    low = np.minimum(np.asarray(lo, np.float64), 0.0)
    high = np.maximum(np.asarray(hi, np.float64), 0.0)
    if format.symmetric:
        scale = np.maximum(high / (format.hi - format.middle), -low / (format.middle - format.lo))
        if format.one_sided:
            scale = np.where(low < 0, scale, high / (format.hi - format.lo))
    else:
        scale = (high - low) / (format.hi - format.lo)
    rounded = np.where(scale == 0, 1.0, representable(scale, format)).astype(np.float32)
    if format.symmetric:
        above = format.one_sided & (low >= 0)
        return QParams(rounded, np.asarray(np.where(above, format.lo, format.middle), np.int32))
    zero_point = np.clip(np.rint(format.lo - low / rounded.astype(np.float64)), format.lo, format.hi)
    return QParams(rounded, np.asarray(zero_point, np.int32))


def reaching(lo: float, hi: float, format: Format) -> float:
    """A lower end such that the lowest value of the grid to `hi` is not above `lo`, however its zero point is rounded.

    With n steps of s = (hi − lo + d) / n rounding moves the grid by s / 2 at most: d = (hi − lo) / (2 n − 1) is enough.
    """
    return lo - (hi - lo) / (2 * (format.hi - format.lo) - 1)


def ends(q: QParams, format: Format) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The range that a scale and a zero point stand for; `qparams` gives both back, to the bit, where the format has
    such a scale: the product of a float32 and a code is exact in float64.
    """
    scale = q.scale.astype(np.float64)
    return (format.lo - q.zero_point) * scale, (format.hi - q.zero_point) * scale


def representable(scale: NDArray[Any], format: Format) -> NDArray[Any]:
    """The scale, or the next larger one that the format's kind of scale has, within finite normal numbers."""
    if format.scale == "half":
        info = np.finfo(np.float16)
        mantissa, exponent = np.frexp(np.clip(scale, float(info.tiny), float(info.max)))
        return np.asarray(np.ldexp(np.ceil(np.ldexp(mantissa, info.nmant + 1)), exponent - info.nmant - 1))
    clipped = np.clip(scale, SMALLEST_SCALE, np.finfo(np.float32).max)
    if format.scale == "pow2":
        mantissa, exponent = np.frexp(clipped)  # mantissa in [0.5, 1)
        return np.asarray(np.ldexp(1.0, np.clip(np.where(mantissa == 0.5, exponent - 1, exponent), -118, 127)))
    return np.asarray(clipped)


def quantize(values: NDArray[np.floating], q: QParams, format: Format) -> NDArray[np.int32]:
    """Codes of `values`, the rounding that onnxruntime's QuantizeLinear does (float32 division, half to even)."""
    scale, zero_point = (along(parameter, values.shape, format) for parameter in (q.scale, q.zero_point))
    codes: NDArray[np.float32] = np.rint(values.astype(np.float32) / scale) + zero_point
    return np.clip(codes, format.lo, format.hi).astype(np.int32)


def quantize_half_up(values: NDArray[np.floating], q: QParams, format: Format) -> NDArray[np.int32]:
    """Codes of `values` as AIMET's simulator rounds: ⌊v / s + (z − lo + ½)⌋ + lo, step by step in float32.

    Ties go up, where `quantize` takes the even code (research/aimet.md §2.7; measured on aimet-onnx 2.42). Grids of
    more than 16 bits are computed in float64.
    """
    number: type[np.floating] = np.float64 if format.wide else np.float32
    scale, zero_point = (along(parameter, values.shape, format) for parameter in (q.scale, q.zero_point))
    above = np.asarray(zero_point - format.lo, number) + number(0.5)
    steps = np.floor(values.astype(np.float32).astype(number) / scale.astype(number) + above)
    return np.asarray(np.clip(steps, 0, format.hi - format.lo), np.int32) + format.lo


def dequantize(codes: NDArray[np.integer], q: QParams, format: Format) -> NDArray[np.float32]:
    """The values that codes stand for."""
    scale, zero_point = (along(parameter, codes.shape, format) for parameter in (q.scale, q.zero_point))
    return np.asarray((codes - zero_point) * scale, np.float32)


def stored_codes(values: NDArray[np.floating], q: QParams, format: Format) -> NDArray[Any]:
    """Codes of an activation in the type that carries them, as a model makes them.

    QuantizeLinear saturates at the ends of the type, also where a strict grid leaves its lowest code out; a grid that
    is narrower than its type is clipped to its own ends.
    """
    codes = np.clip(np.rint(values / q.scale) + q.zero_point, *code_limits(format))
    return np.asarray(codes.astype(carrier(format)))  # numpy makes numbers of arrays without axes


def code_limits(format: Format) -> tuple[int, int]:
    """The lowest and the highest code that a quantized model makes of an activation."""
    if format.simulated:
        return format.lo, format.hi
    return (-1 - format.hi if format.signed else 0), format.hi


def clip_bounds(q: QParams, format: Format) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The ends of the grid in real values: what is clipped to them has codes within `code_limits`, and no others move.

    Dividing (hi − z)·s by s in float32 gives hi − z again, to a relative error of 2⁻²³, so that it rounds to that
    code; and values on either side of it stay there, because rounding is monotonic.
    """
    zero_point = q.zero_point.astype(np.float32)
    low, high = (np.float32(code) - zero_point for code in code_limits(format))  # numpy 1: float64 beside an int
    return np.asarray(low * q.scale), np.asarray(high * q.scale)


def carrier(format: Format) -> str:
    """The numpy type that carries the codes; types of 2 and 4 bits, which numpy has not, travel as bytes."""
    return f"{'' if format.signed else 'u'}int{max(8, format.storage_bits)}"
