"""What a notebook shows of a plan: which tensors have a quantizer, of which type and with which scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.shown.card import LOOK, Card, Level, Tile
from quark_onnx.core.shown.figures import NOTHING, number
from quark_onnx.core.shown.tables import ROWS, listed, reasons_table, table

COLUMNS = ("Tensor", "Role", "Type", "Scales", "Scale", "Zero point", "Range")


class TensorRow(NamedTuple):
    """A tensor that has a quantizer; scale and zero point are None where they are not known beforehand."""

    tensor: str
    role: str
    format: Format
    scale: NDArray[np.float32] | None
    zero_point: NDArray[np.int32] | None


def plan_card(
    model: str,
    rows: Sequence[TensorRow],
    nodes: int,
    notes: Mapping[str, str],
    remarks: Mapping[str, str],
    tuned: Collection[str],
    bodies: Sequence[str],
) -> Card:
    """The card; tensors that something is remarked of come first.

    tuned   weights, biases and other parameters that have learned values
    bodies  of control flow, which have plans of their own
    """
    types = Counter(f"{row.format.dtype} {row.role}s" for row in rows if row.role in ("activation", "weight"))
    tiles = [
        Tile(
            "Quantized", f"{nodes:,} of {nodes + len(notes):,}", "nodes" + f", {len(notes):,} stay float" * bool(notes)
        )
    ]
    tiles.append(Tile("Tensors", f"{len(rows):,}", ", ".join(f"{n:,} {what}" for what, n in types.most_common(4))))
    tiles += [Tile("Learned", f"{len(tuned):,}", "weights and biases")] if tuned else []
    tiles += [Tile("Bodies", f"{len(bodies):,}", "with plans of their own")] if bodies else []
    caption = "Tensors in order of the graph" + ", those with remarks first" * any(
        row.tensor in remarks for row in rows
    )
    order = sorted(rows, key=lambda row: row.tensor not in remarks)
    told = [f"{tensor}: {text}" if tensor != "*" else text for tensor, text in remarks.items()]
    sections = (
        listed(told),
        table(caption, COLUMNS, [_cells(row) for row in order[:ROWS]], len(order), numbers=COLUMNS[3:]),
        reasons_table("What stays float", notes),
    )
    level: Level = "" if nodes else "fair"
    verdict = ("", "") if nodes else (LOOK, "nothing is quantized")
    return Card(f"Plan of model {model}", *verdict, tiles, sections, level)


def _cells(row: TensorRow) -> tuple[str, ...]:
    if row.scale is None or row.zero_point is None or not row.scale.size:
        return (row.tensor, row.role, row.format.dtype, NOTHING, NOTHING, NOTHING, NOTHING)
    zero = row.zero_point.astype(np.float64)
    scale = np.asarray(row.scale, np.float64)
    lo, hi = ((end - zero) * scale for end in (row.format.lo, row.format.hi))
    figures = (f"{scale.size:,}", _ends(scale), _ends(zero), f"{number(float(lo.min()))} … {number(float(hi.max()))}")
    return (row.tensor, row.role, row.format.dtype, *figures)


def _ends(array: NDArray[np.float64]) -> str:
    """One number, or the smallest and the largest."""
    lo, hi = float(array.min()), float(array.max())
    return number(lo) if lo == hi else f"{number(lo)} … {number(hi)}"
