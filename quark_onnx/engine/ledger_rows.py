"""Rows of the ledger: for each node of the prepared model, what the runtime of its target makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from quark_onnx.core.plan import Plan
from quark_onnx.engine.saturation_certificate import Certificate
from quark_onnx.graph import Model

Status = Literal["integer", "absorbed", "float"]

UNSEEN = "quantized for another target; onnxruntime's CPU provider, where the ledger looks, cannot load the model"


@dataclass(frozen=True)
class Row:
    """One node of the prepared model.

    status  integer: an integer kernel, or integers passed through; absorbed: another node's kernel does its work;
            float: computed in floating point
    kernel  what the runtime executes for it: the operator, with its primitive where these have names; empty when it is
            gone
    reason  why it is float, else empty
    certificate  of an integer kernel: whether it computes the same on every processor
    """

    node: str
    op_type: str
    status: Status
    kernel: str
    reason: str
    certificate: Certificate | None = None


class Inside(NamedTuple):
    """A body of control flow: what it is called, the float model that it is, and its plan."""

    title: str
    model: Model
    plan: Plan

    def told(self, reason: str) -> str:
        """A reason that names the body."""
        return f"inside {self.title}: {reason}" if self.title and reason else reason


def unseen(parts: Iterable[Inside], why: str = UNSEEN) -> list[Row]:
    """Rows of a model whose graph as it is executed cannot be had: no more is known than the plans say."""
    nodes = ((part, node.name or "", node.op_type) for part in parts for node in part.model.graph)
    return [Row(name, kind, "float", "", part.told(part.plan.notes.get(name, why))) for part, name, kind in nodes]


def certificates_of(rows: Iterable[Row]) -> dict[str, Certificate]:
    """Integer node → its certificate."""
    return {row.node: row.certificate for row in rows if row.certificate is not None}


def fused(rows: Iterable[Row], *op_types: str) -> int:
    """How many nodes of these operators run on integers."""
    return sum(row.op_type in op_types and row.status == "integer" for row in rows)
