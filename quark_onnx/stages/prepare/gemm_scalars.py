"""Multiply Gemm's alpha and beta into its constants: integer kernels know neither.

    α A B + β C  =  A (αB) + (βC)

Each goes where its constant is one; a Gemm without C has no use for β.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.edit import set_constant
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, is_float
from quark_onnx.stages.prepare.scaled_constants import stored

SCALARS = (("alpha", 1), ("beta", 2))


class Product(NamedTuple):
    """An attribute that goes, and the constant it went into: None if the input is missing."""

    name: str
    at: int
    array: NDArray[Any] | None


class Found(NamedTuple):
    gemm: Node
    products: tuple[Product, ...]


def match(gemm: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    scalars = [(name, at, gemm.attributes.get_float(name, 1.0)) for name, at in SCALARS]
    tried = [_product(gemm, name, at, scalar) for name, at, scalar in scalars if scalar != 1]
    products = tuple(result for result in tried if isinstance(result, Product))
    refusals = [result for result in tried if isinstance(result, Skip)]
    if products:
        return Found(gemm, products)
    return refusals[0] if refusals else Skip("alpha and beta are 1")


@np.errstate(all="ignore")  # what overflows is refused
def _product(gemm: Node, name: str, at: int, scalar: float) -> Product | Skip:
    value = input_at(gemm, at)
    if value is None:
        return Product(name, at, None)
    array = constant(value)
    if array is None or not is_float(value):
        return Skip(f"what {name} multiplies is not a constant of floats")
    new = stored(scalar * array.astype(np.float64), array.dtype)
    return new if isinstance(new, Skip) else Product(name, at, new)


def apply(found: Found) -> None:
    """Edit only."""
    for name, at, array in found.products:
        found.gemm.attributes.pop(name)
        if array is not None:
            set_constant(found.gemm, at, array, f"{found.gemm.name}_{name}")


RULE = Rule("gemm-scalars", ("Gemm",), match, apply)
