"""Where the scales of an encoding lie on a tensor, and the format and numbers that a plan has for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError
from quark_onnx.core.number_formats import Format, ScaleType
from quark_onnx.core.plan import QParams
from quark_onnx.encodings.encoding_values import Encoding, EncodingFile, half
from quark_onnx.numerics.quantizer import SMALLEST_SCALE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Shapes = Mapping[str, tuple[int, ...]]
"""Initializers and their shapes."""

Axes = Mapping[str, tuple[int, int]]
"""Weights and their axes of output channels, which have scales of their own, and of input channels, which blocks cut.

AIMET: Conv (0, 1), ConvTranspose (1, 0), Gemm with transB (0, 1), other Gemm (1, 0), MatMul (−1, −2), one axis (0, 0).
"""


def shape_of(shapes: Shapes, tensor: str) -> tuple[int, ...]:
    """The shape of an initializer.

    Raises:
        PlanError: it is not given.
    """
    if tensor not in shapes:
        raise PlanError(f"the shape of initializer {tensor!r} is needed; give it in `shapes`")
    return shapes[tensor]


def with_axes(file: EncodingFile, shapes: Shapes, axes: Axes) -> EncodingFile:
    """A file of version 0.6.1 or 1.0.0 with the axes that it does not say, so that it can be written as 2.0.0.

    Raises:
        PlanError: an axis or a shape is missing, or there are not as many scales as it has channels or blocks.
    """

    def known(section: Mapping[str, Encoding]) -> dict[str, Encoding]:
        lain = {t: placed(e, shape_of(shapes, t), axes.get(t)) for t, e in section.items() if e.kind != "tensor"}
        return {t: lain.get(t, e) for t, e in section.items()}

    return replace(file, activations=known(file.activations), parameters=known(file.parameters))


def placed(encoding: Encoding, shape: tuple[int, ...], axes: tuple[int, int] | None) -> Encoding:
    """The encoding of channels or blocks with its axis counted from 0, and blocks in the rank of the tensor.

    Raises:
        PlanError: neither file nor `axes` has the axis, or there are not as many scales as channels or blocks.
    """
    axis = encoding.axis
    if axis is None:
        if axes is None:
            raise PlanError(
                f"tensor {encoding.tensor!r} has {encoding.scale.size} scales, and the file does not say their axis; "
                "give it in `axes`, or use a file of version 2.0.0"
            )
        axis = axes[encoding.kind == "block"]
    if not -len(shape) <= axis < len(shape):
        raise PlanError(
            f"tensor {encoding.tensor!r} of shape {shape} has no axis {axis}; axes are {-len(shape)}..{len(shape) - 1}"
        )
    axis %= len(shape)
    wanted = _shapes(encoding, shape, axis)
    found = encoding.scale.shape
    if encoding.axis is None and encoding.block:
        wanted = [target for target in wanted if math.prod(target) == encoding.scale.size]
    elif found not in wanted:
        wanted = []
    if not wanted:
        what = f"blocks of {encoding.block}" if encoding.block else "channels"
        raise PlanError(
            f"tensor {encoding.tensor!r} of shape {shape} has {encoding.scale.size} scales (shape {found}), which are "
            f"no {what} along axis {axis}; take the file that was made for this model"
        )
    if encoding.axis is not None or not encoding.block:
        return replace(encoding, axis=axis)
    target = wanted[0]
    scale, zero_point = encoding.scale.reshape(target), encoding.zero_point.reshape(target)
    if len(shape) == 2 and axis == 0:  # 1.0.0 has matrices by output channel
        scale, zero_point = encoding.scale.reshape(target[::-1]).T, encoding.zero_point.reshape(target[::-1]).T
    return replace(encoding, axis=axis, scale=scale, zero_point=zero_point)


def _shapes(encoding: Encoding, shape: tuple[int, ...], axis: int) -> list[tuple[int, ...]]:
    """Shapes that the scales may have: with blocks also one for all positions of a kernel."""
    if not encoding.block:
        return [(shape[axis],)]
    full = tuple(-(-n // encoding.block) if i == axis else n for i, n in enumerate(shape))
    return [full, *([full[:2] + (1,) * (len(full) - 2)] if axis < 2 < len(full) else [])]


def grid(
    encoding: Encoding,
    base: Format,
    *,
    typed: bool,
    old: QParams | None = None,
    shape: tuple[int, ...] | None = None,
    axes: tuple[int, int] | None = None,
) -> tuple[Format, QParams]:
    """Format, scales and zero points with the values of the encoding; the format stays `base` where it can.

    Args:
        typed: the file says whether codes are signed (2.0.0), but not whether they are symmetric; others say the
            latter only.
        old: what the tensor had; one number for all of it keeps its shape.
        shape: of an initializer, None of an activation.

    Raises:
        PlanError: as `placed`, or a scale is no normal float32.
    """
    stored = None if base.stored is None or base.stored < encoding.bits else base.stored
    base = replace(base, bits=encoding.bits, signed=encoding.signed if typed else base.signed, stored=stored)
    base, scale, codes = _placement(encoding, base, old, shape, axes)
    with np.errstate(over="ignore"):
        single = scale.astype(np.float32)
    if not np.all(np.isfinite(single) & (single >= SMALLEST_SCALE)):
        raise PlanError(
            f"tensor {encoding.tensor!r} has a scale that is no normal float32: {scale.min():g}..{scale.max():g}; "
            "compute the encodings again"
        )
    format = replace(_format(encoding, base, codes, typed), scale=_kind(single, base.scale))
    around_zero = (format.bits, format.signed, format.symmetric, format.one_sided) == (8, True, True, False)
    format = replace(format, safe_pairs=format.safe_pairs if around_zero else "")
    zero_point = codes - half(format.bits) if format.signed else codes
    if format.symmetric:
        zero_point = np.where(codes == 0, format.lo, format.middle)
    return format, QParams(single, np.asarray(zero_point, np.int32))


def _placement(
    encoding: Encoding, base: Format, old: QParams | None, shape: tuple[int, ...] | None, axes: tuple[int, int] | None
) -> tuple[Format, Floats, Integers]:
    """Axis and block in the format, scales, and zero points counted from the lowest code."""
    if encoding.kind == "tensor":
        if old is not None and old.scale.size == 1:
            return base, encoding.scale.reshape(old.scale.shape), -encoding.offset.reshape(old.scale.shape)
        return replace(base, axis=None, block=None), encoding.scale, -encoding.offset
    if base.axis is not None and bool(base.block) == bool(encoding.block):
        axes = base.axis, base.axis
    if shape is None:
        raise PlanError(
            f"tensor {encoding.tensor!r} has {encoding.scale.size} scales, but is computed by the model; "
            "an activation has one: export the file with per-tensor activations"
        )
    found = placed(encoding, shape, axes)
    scale, codes = found.scale, -found.offset
    if found.block:
        full = _shapes(found, shape, found.axis or 0)[0]
        scale, codes = np.broadcast_to(scale, full), np.broadcast_to(codes, full)
    return replace(base, axis=found.axis, block=found.block), scale, codes


def _format(encoding: Encoding, base: Format, codes: Integers, typed: bool) -> Format:
    """The base with the encoding's symmetry.

    Zero points of 0, counted from the lowest code, are one-sided, and do not say whether the grid is strict; those in
    the middle are not strict, and those one below are.
    """
    middle = half(base.bits)
    below = bool(np.all((codes == middle - 1) | (codes == 0)))
    central = bool(np.all((codes == middle) | (codes == 0)))
    symmetric = base.symmetric and (below or central) if typed else encoding.symmetric
    if not symmetric:
        return replace(base, symmetric=False)
    found = replace(base, symmetric=True, one_sided=base.one_sided or bool(np.any(codes == 0)))
    strict = found.lo > (-middle if found.signed else 0)
    return found if (below and central) or strict == below else replace(found, strict=below)


def _kind(scale: NDArray[np.float32], wanted: ScaleType) -> ScaleType:
    """Powers of two and float16 scales stay so where the numbers are."""
    if wanted == "pow2" and np.all(np.frexp(scale)[0] == 0.5):
        return wanted
    with np.errstate(over="ignore"):
        return wanted if wanted == "half" and np.array_equal(scale.astype(np.float16), scale) else "float"
