"""Whether a model computes the same on every x64 processor: read from its codes, for every input, nothing is run.

x64 without VNNI adds two neighbouring products u8 × s8 in 16 bits, and clips. A node whose pairs of weights all fit
(`numerics.weight_pairs`) is exact everywhere. What is looked at is the graph that onnxruntime executes: there the
types are those of the kernels, and weights behind a Transpose or Reshape are constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.operators import CPU
from quark_onnx.engine.layers.matrix_geometry import conv_geometry
from quark_onnx.engine.product_kernels import EXACT_PRODUCTS, PRODUCTS, Product
from quark_onnx.engine.runner import executed_model
from quark_onnx.graph import Model, Node, Value, io, large_weights
from quark_onnx.graph.passes import name_nodes
from quark_onnx.graph.view import constant, constant_tensor, input_at, is_op
from quark_onnx.numerics.weight_pairs import LIMIT, UNSIGNED_LIMIT, unsafe_pairs

Verdict = Literal["exact", "may saturate", "unknown"]

ROWS = 1 << 22
"""Codes that are looked at a time."""

NAMED = 3
"""Nodes that a sentence names, at most."""


@dataclass(frozen=True)
class Certificate:
    """What is certified of one integer kernel on x64.

    verdict      exact: on every processor, for every input; may saturate: without VNNI, some inputs come out wrong;
                 unknown: the codes cannot be looked at
    reason       why
    pairs        pairs of weights that are added in 16 bits; `unsafe_pairs` of them are too large
    rows         outputs, or channels, that they belong to; `unsafe_rows` have such a pair
    """

    verdict: Verdict
    reason: str
    pairs: int = 0
    unsafe_pairs: int = 0
    rows: int = 0
    unsafe_rows: int = 0


NO_PRODUCT = Certificate("exact", "no products are added")
DEPTHWISE = Certificate("exact", "depthwise convolution is added in 32 bits")
NO_CONSTANT = Certificate("unknown", "no side is a constant, so no code is known beforehand")


def is_quantized(model: Model) -> bool:
    """Whether a model, of any tool, has quantizers or integer products."""
    return any(is_op(n, "QuantizeLinear", "DequantizeLinear") or n.op_type in PRODUCTS for n in model.graph.all_nodes())


def certify(model: Model) -> dict[str, Certificate]:
    """A certificate for every node that onnxruntime runs on integer kernels, of a quantized model of any tool.

    Nodes have the names that they have in the model; those without a name are called by operator and output.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """
    named = io.copy(model)
    name_nodes(named)
    names = {node.name or "" for node in named.graph.all_nodes()}
    with executed_model(named) as executed:
        return {_written(node.name or "", names): found for node, found in certificates(executed).items()}


def certificates(executed: Model) -> dict[Node, Certificate]:
    """The same by node of the graph that onnxruntime executes, bodies of control flow included."""
    found = {}
    for node in executed.graph.all_nodes():
        if node.op_type in PRODUCTS:
            found[node] = max((_certificate(node, product) for product in PRODUCTS[node.op_type]), key=_badness)
            for value in node.inputs:
                large_weights.let_go(constant_tensor(value))
        elif node.op_type in EXACT_PRODUCTS:
            found[node] = Certificate("exact", "its sums have room for all codes")
        elif node.op_type.startswith("QLinear"):
            found[node] = NO_PRODUCT
    return found


def _badness(certificate: Certificate) -> int:
    return ("exact", "unknown", "may saturate").index(certificate.verdict)


def _written(name: str, names: set[str]) -> str:
    """The name of the node that one was made from: onnxruntime puts words before and behind it."""
    bare = name.removeprefix("fused ")
    while bare not in names and ("_token_" in bare or "/" in bare):
        bare = bare.rpartition("_token_" if "_token_" in bare else "/")[0]
    return bare if bare in names else name


def _certificate(node: Node, product: Product) -> Certificate:
    left, right = _codes(node, product.left), _codes(node, product.right)
    types = _type(node, product.left, product.left_zero), _type(node, product.right, product.right_zero)
    if types[0] not in (None, np.uint8) or types[1] not in (None, np.int8):
        return Certificate("exact", f"{types[0] or 'any type'} × {types[1] or 'any type'} is added in 32 bits")
    if product.exact_depthwise and right is not None and _depthwise(node, right):
        return DEPTHWISE
    if right is not None and product.layout != "conv_integer":
        rows = _rows(right, node, product)
        return counted(rows, rows.shape[-1])
    if left is not None and product.layout != "conv":
        rows = _rows(left, node, product, right=False)
        return counted(rows, rows.shape[-1], UNSIGNED_LIMIT)
    return NO_CONSTANT


def _codes(node: Node, index: int | None) -> NDArray[Any] | None:
    return None if index is None else constant(input_at(node, index))


def _type(node: Node, codes: int | None, zero: int | None) -> np.dtype[Any] | None:
    """The type of one side; None where it cannot be told."""
    if codes is None:
        return np.dtype(np.uint8)
    for index in (zero, codes):
        value = None if index is None else input_at(node, index)
        if value is not None and (found := type_of(value)) is not None:
            return found
    return None


def type_of(value: Value) -> np.dtype[Any] | None:
    """Of a constant, of a value that says it, of what quantizers make, and of what is only moved."""
    if value.const_value is not None:
        return np.dtype(value.const_value.dtype.numpy())
    if value.dtype is not None:
        return np.dtype(value.dtype.numpy())
    node = value.producer()
    if node is None:
        return None
    if node.op_type in ("DynamicQuantizeLinear", "QuantizeLinear"):
        zero = input_at(node, 2)
        return np.dtype(np.uint8) if zero is None else type_of(zero)
    first = input_at(node, 0)
    return type_of(first) if first is not None and node.op_type in CPU and CPU[node.op_type].kind == "same" else None


def _depthwise(node: Node, weight: NDArray[Any]) -> bool:
    """Whether every group has one channel in and one out."""
    return bool(weight.shape[1] == 1 and weight.shape[0] == node.attributes.get_int("group", 1))


def _rows(codes: NDArray[Any], node: Node, product: Product, *, right: bool = True) -> NDArray[Any]:
    """A constant side as (…, K), in the order in which the kernel adds."""
    if product.layout == "conv":
        return conv_geometry(node, codes.shape[2:]).rows(codes)
    if product.layout == "conv_integer":
        return codes.reshape(len(codes), -1)
    turned = bool(node.attributes.get_int("transB" if right else "transA", 0))
    return codes if codes.ndim < 2 or turned is right else np.swapaxes(codes, -1, -2)


def counted(codes: NDArray[Any], run: int, limit: int = LIMIT) -> Certificate:
    """Certified by the pairs of a matrix (…, K), some rows at a time; `run`, `limit`: see `numerics.weight_pairs`."""
    rows = codes.reshape(-1, codes.shape[-1])
    step = max(1, ROWS // max(1, rows.shape[1]))
    unsafe = [unsafe_pairs(rows[i : i + step], run, limit).sum(1) for i in range(0, len(rows), step)]
    counts = np.concatenate([np.zeros(0, np.int64), *unsafe])
    each = rows.shape[1] // max(1, run) * (run // 2)
    pairs, large, hit = len(rows) * each, int(counts.sum()), int((counts > 0).sum())
    if not large:
        return Certificate("exact", "every pair of weights is small enough", pairs, 0, len(rows), 0)
    reason = f"{large} of {pairs} pairs of weights are too large, in {hit} of {len(rows)} rows"
    return Certificate("may saturate", reason, pairs, large, len(rows), hit)


def not_exact(found: Mapping[str, Certificate]) -> list[str]:
    """The nodes that are not exact on every processor."""
    return [name for name, certificate in found.items() if certificate.verdict != "exact"]


def summary(found: Mapping[str, Certificate]) -> str:
    """One line about all integer nodes; empty where there are none."""
    if not found:
        return ""
    parts = []
    for verdict, text in (("may saturate", "may saturate on x64 without VNNI"), ("unknown", "cannot be known")):
        names = [name for name, certificate in found.items() if certificate.verdict == verdict]
        if names:
            parts.append(f"{len(names)} {text} ({first_names(names)})")
    exact = sum(certificate.verdict == "exact" for certificate in found.values())
    return ", ".join([f"{exact} of {len(found)} integer nodes exact on every processor", *parts])


def first_names(names: Sequence[str]) -> str:
    """The first few, and whether there are more."""
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED)
