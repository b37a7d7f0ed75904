"""A value of a sample made to fit its input: array, type, batch axis; what cannot be is refused with the way out.

What was quietly put right is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quark_onnx.core.errors import DataError
from quark_onnx.core.resource_faults import let_out
from quark_onnx.engine.array_likes import Array, array_of, holds_array
from quark_onnx.engine.data_sources import InputSpec

Note = Callable[[str], None]


def conform(value: object, spec: InputSpec, where: str, note: Note) -> Array:
    """The value as an array the input accepts, up to a whole multiple of its fixed batch; DataError otherwise."""
    who = f"input {spec.name!r}, {where}"
    try:
        array = array_of(value)
    except Exception as error:  # another library's may be anything
        let_out(error)
        raise DataError(f"{who}: this is not an array ({error}); pass a numpy array") from error
    typed = _fit_type(array, spec, who, note, bare=not holds_array(value))
    return _fit_shape(typed, spec, who, note)


def could_be(value: object, spec: InputSpec, rank: int) -> bool:
    """Whether a value of this rank could be the input; without a batch axis only where the rank says so."""
    try:
        return rank_of(value) == rank and conform(value, spec, "", lambda _: None) is not None
    except DataError:
        return False


def rank_of(value: object) -> int:
    """-1: it is no array."""
    try:
        return array_of(value).ndim
    except Exception as error:
        let_out(error)
        return -1


def refuse_infinite(array: Array, spec: InputSpec, where: str, *, masks: bool) -> None:
    """DataError where a float array holds NaN or infinity; `masks`: −∞ is let through."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array) & ~(np.isneginf(array) & masks)
    if bad.any():
        first, count = tuple(int(axis[0]) for axis in np.nonzero(bad)), np.count_nonzero(bad)
        raise DataError(
            f"input {spec.name!r}, {where}: {count} of {array.size} values are NaN or infinite as {spec.dtype}, first "
            f"{array[first]} at {first}; repair the preprocessing or leave this sample out"
        )


def _fit_shape(array: Array, spec: InputSpec, who: str, note: Note) -> Array:
    """The array with the batch axis it may lack; DataError for another rank or fixed dimension."""
    if spec.shape is None:
        return array
    need = "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"
    if array.ndim == len(spec.shape) - 1 and _fits(array.shape, spec.shape[1:]):
        note(f"input {spec.name!r}: samples without a batch axis were given one")
        array = array[None]
    if array.ndim != len(spec.shape):
        misfit = f"the rank is {array.ndim} (shape {array.shape}), the model needs {need}"
        raise DataError(f"{who}: {misfit}; {_layout_hint(array.shape, spec.shape) or 'reshape it'}")
    if spec.batch and (not len(array) or len(array) % spec.batch):
        raise DataError(f"{who}: a batch of {len(array)} cannot be split into the model's {spec.batch}; cut or pad it")
    for axis in range(1, array.ndim):
        if spec.shape[axis] not in (None, array.shape[axis]):
            misfit = f"dimension {axis} is {array.shape[axis]} (shape {array.shape}), the model needs {need}"
            hint = _layout_hint(array.shape, spec.shape) or "resize or reshape it as for inference"
            raise DataError(f"{who}: {misfit}; {hint}")
    return array


def _fits(dims: Sequence[int], fixed: Sequence[int | None]) -> bool:
    return len(dims) == len(fixed) and all(want in (None, dim) for dim, want in zip(dims, fixed, strict=True))


def _layout_hint(dims: Sequence[int], fixed: Sequence[int | None]) -> str:
    """What to do where channels stand at the other end, with a batch axis or without; empty: they do not."""
    for layout, order in (("HWC", (2, 0, 1)), ("CHW", (1, 2, 0))):
        if len(fixed) == 4 and len(dims) in (3, 4) and _fits([dims[axis - 3] for axis in order], fixed[1:]):
            if len(dims) == 4:
                return f"it looks like N{layout}: use array.transpose{(0, *(axis + 1 for axis in order))}"
            return f"it looks like {layout}: use array.transpose{order}"
    return ""


def _fit_type(array: Array, spec: InputSpec, who: str, note: Note, *, bare: bool) -> Array:
    """The array in the input's type, strings as objects. `bare`: made from Python numbers, which have no width."""
    have, want = array.dtype, spec.dtype
    if want.kind in "OUST":
        if have.kind in "UST" or (have.kind == "O" and all(isinstance(value, (str, bytes)) for value in array.flat)):
            return array.astype(object)
    elif have == want:
        return array
    elif spec.truth and have.kind in "iuf":
        return array.astype(bool)
    elif _castable(array, want, bare):
        note(f"input {spec.name!r}: {'Python values' if bare else have} were cast to {want}")
        with np.errstate(over="ignore"):  # becomes an infinity, which is refused with a better message
            return array.astype(want)
    whole = have.kind in "iub" and want.kind in "iub"
    way_out = f"convert them, e.g. astype('{want}')" if whole else "preprocess as for inference, then convert"
    raise DataError(f"{who}: the values are {have}, the model needs {want}; {way_out}")


def _castable(array: Array, want: np.dtype[Any], bare: bool) -> bool:
    have = array.dtype
    if have.kind in "iu" and bare:
        return want.kind in "iuf" and np.array_equal(array.astype(want), array)
    if have.kind == "V" and "float" in have.name:  # bfloat16 and smaller ones, which other packages add to numpy
        return want.kind == "f"
    return have.kind == want.kind == "f" or (have.kind in "iu" and want.kind in "iu" and np.can_cast(have, want))
