"""Numbers that no plan may have: its folder can be damaged, or be edited by hand.

    scale        finite, above 0, and one that the format has; as many axes as the format says
    zero_point   a code of the format, for every scale
    codes        within the format
    others       factors, shifts, smoothed and values: finite

Parts are known by their names, whatever field of the plan they belong to. What only the model tells, as how many scales
a weight has, is checked where the plan meets it: `engine.plan_against_model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.json_reading import finite
from quark_onnx.core.number_formats import Format, Pairs, ScaleType

Array = NDArray[Any]

NAMES = {"": "it has", "scale": "its scale has", "zero_point": "its zero point has", "codes": "its codes have"}
"""How messages begin."""

STORED = (None, 2, 4, 8, 16, 32)
"""Widths of the types that hold codes."""


def entry_fault(parts: Mapping[str, Array], formats: Iterable[Format]) -> str | None:
    """What is wrong with the arrays of one entry; None: nothing.

    Args:
        parts: by their names in `plan.ARRAYS`; an entry that is an array has one part, without a name.
        formats: of all sites that the entry belongs to.
    """
    for part, array in parts.items():
        kind, name = ("iu", "integers") if part in ("zero_point", "codes") else ("f", "floating-point numbers")
        if array.dtype.kind not in kind:
            return f"{NAMES[part]} the type {array.dtype}; it must hold {name}"
        if not np.isfinite(array).all():
            return f"{NAMES[part]} the value {_first(array, ~np.isfinite(array))}; it must be finite"
    if "scale" in parts and (bad := ~(parts["scale"] > 0)).any():
        return f"{NAMES['scale']} the value {_first(parts['scale'], bad)}; it must be above 0"
    if "zero_point" in parts and parts["zero_point"].shape != parts["scale"].shape:
        return f"its scale has the shape {parts['scale'].shape}, its zero point {parts['zero_point'].shape}"
    return next((why for format in formats if (why := _misfit(parts, format)) is not None), None)


def _misfit(parts: Mapping[str, Array], format: Format) -> str | None:
    """What does not fit the format."""
    lowest = -1 - format.hi if format.signed else 0
    for part in ("zero_point", "codes"):
        codes = parts.get(part, np.zeros(0, np.int32))
        if (bad := (codes < lowest) | (codes > format.hi)).any():
            type_name = f"{'' if format.signed else 'u'}int{format.bits}"
            return f"{NAMES[part]} the value {_first(codes, bad)}; {type_name} has {lowest}..{format.hi}"
    scale = parts.get("scale")
    if scale is None:
        return None
    axes = 0 if format.axis is None else 1
    if scale.ndim < axes or (scale.ndim > axes and not format.block):
        wanted = "one number" if not axes else "one for each index of an axis"
        return f"its scale has the shape {scale.shape}, and the format wants {wanted}"
    if (bad := ~_has(format.scale, scale)).any():
        kind = "a power of two" if format.scale == "pow2" else "a number that float16 holds"
        return f"its scale has the value {_first(scale, bad)}; it must be {kind}"
    return None


def _has(kind: ScaleType, scale: Array) -> NDArray[np.bool_]:
    """Which scales are of this kind."""
    if kind == "pow2":
        return np.asarray(np.frexp(scale)[0] == 0.5)
    if kind == "half":
        with np.errstate(over="ignore"):
            return np.asarray(scale.astype(np.float16) == scale)
    return np.ones(scale.shape, bool)


def _first(array: Array, bad: Array) -> Any:
    return array[bad].reshape(-1)[0].item()


def format_fault(format: Format) -> str | None:
    """What is wrong with a format; None: nothing."""
    if not _whole(format.bits, 2, 32):
        return f"{format.bits!r} bits"
    if not all(isinstance(flag, bool) for flag in (format.signed, format.symmetric, format.one_sided)):
        return "a format whose signed, symmetric or one_sided is neither true nor false"
    if format.strict is not None and not isinstance(format.strict, bool):
        return f"a format with strict {format.strict!r}"
    if format.axis is not None and not _whole(format.axis, 0, 64):
        return f"axis {format.axis!r}"
    if format.block is not None and (format.axis is None or not _whole(format.block, 1, 2**31)):
        return f"blocks of {format.block!r} along axis {format.axis!r}"
    if format.scale not in get_args(ScaleType):
        return f"scales of the kind {format.scale!r}"
    if format.safe_pairs not in get_args(Pairs):
        return f"safe pairs of the kind {format.safe_pairs!r}"
    if format.stored not in STORED or (format.stored is not None and format.stored < format.bits):
        return f"{format.bits} bits stored in {format.stored!r}"
    return None


def _whole(number: object, low: int, high: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and low <= number <= high


def range_fault(ends: tuple[object, object] | None, *lowest: object) -> str | None:
    """What is wrong with a range that is known beforehand, or with what is known of its lower end; None: nothing."""
    for low in lowest:
        if low is not None and not _finite(low):
            return f"the lower end {low!r}"
    if ends is None:
        return None
    if len(ends) != 2:
        return f"a range of {len(ends)} ends"
    lo, hi = (end if isinstance(end, tuple) else (end,) for end in ends)
    sound = len(lo) == len(hi) and all(_finite(a) and _finite(b) and a <= b for a, b in zip(lo, hi, strict=True))
    return None if sound else f"the range {ends}"


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and finite(number)
