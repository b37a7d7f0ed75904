"""Arrays of other libraries, none of which is imported: what holds an array says so by a method.

detach, cpu   torch: away from its history and its device; types that numpy lacks become float32
__array__     numpy, jax, tf, pandas, paddle; __array_interface__: images of Pillow
numpy         OrtValue, ragged tensors
__dlpack__    what has nothing else
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_SIGNS = ("__array__", "__array_interface__", "numpy", "__dlpack__")


def holds_array(value: object) -> bool:
    """Whether the value is an array of some library; lists of numbers are not."""
    return any(hasattr(value, sign) for sign in _SIGNS)


def array_of(value: Any) -> Array:
    """The value as numpy's array, with the same memory where that can be.

    Raises:
        ValueError: it is a list of which nobody knows whether it holds rows or columns.
        Exception: whatever the library of the value has against it.
    """
    if isinstance(value, (list, tuple)):
        return _of_list(value)
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return _of_torch(value)
    if not hasattr(value, "__array__"):
        if hasattr(value, "numpy"):
            return np.asarray(value.numpy())
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
    return np.asarray(value)


def _of_torch(tensor: Any) -> Array:
    there = tensor.detach().cpu()
    narrow = any(name in str(there.dtype) for name in ("bfloat16", "float8"))
    return np.asarray((there.float() if narrow else there).numpy())


def _of_list(values: Any) -> Array:
    """Of numbers or of arrays.

    A loader that puts rows of plain lists together makes a tensor of every position: what looks like rows are columns.
    """
    first = values
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if isinstance(first, (np.ndarray, np.generic)) or not holds_array(first):
        return np.asarray(values)
    arrays = [array_of(value) for value in values]
    if array_of(first).ndim == 1:
        raise ValueError(
            f"a list of {len(values)} tensors, which may be rows, or columns as a DataLoader makes them of rows that "
            "are lists: stack them, or let the data hold tensors, e.g. with_format('torch')"
        )
    return np.stack(arrays)
