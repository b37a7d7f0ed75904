"""The transformers of `tests/exports`, which `scripts/export_transformers.py` makes, and data for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

FOLDER = Path(__file__).parents[1] / "exports"
EXPORTS = sorted(path.stem for path in FOLDER.glob("*.onnx"))
BATCH, LENGTH, VOCABULARY = 2, 12, 40

Feed = dict[str, np.ndarray]


def exported_feeds(name: str, count: int, seed: int = 0, past: int = 5) -> list[Feed]:
    """Batches of two for an export: sentences of 3 to 12 tokens and padding, images with large and small structure.

    past: tokens that came before, where keys and values of them are inputs
    """
    rng = np.random.default_rng(seed)
    inputs = onnx.load(FOLDER / f"{name}.onnx").graph.input
    return [{info.name: _drawn(info, rng, past) for info in inputs} for _ in range(count)]


def _drawn(info: onnx.ValueInfoProto, rng: np.random.Generator, past: int) -> np.ndarray:
    dtype = tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    values: Any
    if info.name == "input_ids":
        values = rng.integers(VOCABULARY, size=(BATCH, LENGTH))
    elif info.name == "attention_mask":
        values = np.arange(LENGTH) < rng.integers(3, LENGTH + 1, size=(BATCH, 1))
    elif info.name == "pixel_values":
        coarse, fine = (rng.standard_normal((BATCH, 3, size, size)) for size in (4, 16))
        values = coarse.repeat(4, 2).repeat(4, 3) + 0.5 * fine
    else:  # keys or values of a head
        heads, _, size = (dim.dim_value for dim in info.type.tensor_type.shape.dim[1:])
        values = rng.standard_normal((BATCH, heads, past, size))
    return values.astype(dtype)
