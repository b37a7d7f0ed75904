"""A site as a user asks for it: format, range and method of one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import TYPES, Format
from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Ends, QParams, Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.tensor_overrides import Override
from quark_onnx.graph import Value
from quark_onnx.graph.view import is_op, rank, shape
from quark_onnx.numerics.quantizer import ends, qparams


def asked(site: Site, value: Value, wanted: Override, where: str, config: QuantizationConfig) -> Site:
    """The site with what an override asks for.

    Args:
        value: the tensor in the graph.
        where: names the override in errors.

    Raises:
        ConfigError: the tensor, or the target, does not allow it.
    """
    role = "weight" if site.role == "weight" else "activation"
    if site.role == "dynamic":
        raise ConfigError(f"{where}: {site.tensor!r} is quantized at run time, where nothing can be chosen; remove it")
    if site.role == "bias":
        _check_bias(site, wanted, where)
    elif role == "activation":
        _check_activation(site, wanted, where)
    _check_target(wanted, role, where, config)
    format = _weight(site, value, wanted, where, config) if role == "weight" else _activation(site, wanted, config)
    if wanted.scale:
        return _scaled(replace(site, format=format, method=None), value, wanted, where, config)
    if wanted.lo:
        known = _ends(_per(wanted.lo, value, format), _per(wanted.hi, value, format))
        return replace(site, format=format, range=known, method=None)
    if wanted.method == "NonOverflow":  # chooses among powers of two
        format = replace(format, scale="pow2")
    if wanted.method is not None:
        return replace(site, format=format, range=None, method=wanted.method)
    return replace(site, format=format)


def _check_bias(site: Site, wanted: Override, where: str) -> None:
    if site.format.bits == 32:
        raise ConfigError(
            f"{where}: {site.tensor!r} is a bias, its scale is that of the input times that of the weight; override "
            "those, or give biases a scale of their own with Int16Bias=True or Int32Bias=False"
        )
    _check_activation(site, wanted, where)


def _check_activation(site: Site, wanted: Override, where: str) -> None:
    for key, given in (("axis", wanted.axis), ("reduce_range", wanted.reduce_range)):
        if given is not None:
            raise ConfigError(f"{where}: {key!r} is for weights, and {site.tensor!r} is none; remove it")


def _check_target(wanted: Override, role: str, where: str, config: QuantizationConfig) -> None:
    target = config.row
    allowed = target.weight_types if role == "weight" else target.activation_types
    if allowed and wanted.type is not None and wanted.type not in allowed:
        raise ConfigError(f"{where}: target {target.name!r} runs {role}s of {' or '.join(allowed)}, not {wanted.type}")
    if target.symmetric and wanted.symmetric is False:
        raise ConfigError(f"{where}: target {target.name!r} needs symmetric {role}s; remove 'symmetric'")
    if wanted.per_channel and not target.per_channel:
        raise ConfigError(f"{where}: target {target.name!r} runs one scale per weight; remove 'per_channel' or 'axis'")


def _activation(site: Site, wanted: Override, config: QuantizationConfig) -> Format:
    """Format of an activation, a constant, or a bias with a scale of its own."""
    format = site.format
    if wanted.type is not None:
        bits, signed = TYPES[wanted.type]
        format = replace(format, bits=bits, signed=signed, stored=None)
    if wanted.symmetric is not None:
        one_sided = wanted.symmetric and bool(config.option("UseUnsignedReLU"))
        format = replace(format, symmetric=wanted.symmetric, one_sided=one_sided)
    return format


def _weight(site: Site, value: Value, wanted: Override, where: str, config: QuantizationConfig) -> Format:
    """A type of its own comes with the symmetry that the configuration gives to it."""
    format = site.format
    if wanted.type is not None or wanted.reduce_range is not None:
        name = wanted.type or config.weight_type
        bits, signed = TYPES[name]
        if wanted.reduce_range and bits != 8:
            raise ConfigError(f"{where}: reduce_range is for 8-bit weights, not {name}; remove it")
        reduced = config.reduce_range or config.row.reduce_range if wanted.reduce_range is None else wanted.reduce_range
        symmetric = config.option("WeightSymmetric")
        symmetric = signed if symmetric is None else symmetric
        bits -= bits == 8 and reduced
        format = replace(format, bits=bits, signed=signed, symmetric=symmetric, stored=None)
    if wanted.symmetric is not None:
        format = replace(format, symmetric=wanted.symmetric)
    if wanted.per_channel is None:
        return format
    axis = _axis(site, value, wanted, where, config.row.ops) if wanted.per_channel else None
    return replace(format, axis=axis, block=None)


def _axis(site: Site, value: Value, wanted: Override, where: str, ops: Mapping[str, Op]) -> int | None:
    """The axis of the scales: as told, otherwise that of the output channels; None where a weight has no such axis."""
    if wanted.axis is None:
        return output_axis(value, ops)
    dims = shape(value) or ()
    if not -len(dims) <= wanted.axis < len(dims):
        raise ConfigError(f"{where}: axis {wanted.axis} is none of the {len(dims)} axes of {site.tensor!r}")
    axis = wanted.axis % len(dims)
    if wanted.channels not in (None, dims[axis]):
        raise ConfigError(
            f"{where} has {wanted.channels} dictionaries, but {site.tensor!r} has {dims[axis]} channels along axis "
            f"{axis}; give one for all, or one per channel"
        )
    return axis


def output_axis(value: Value, ops: Mapping[str, Op]) -> int | None:
    """A weight's axis of output channels; None for a product that the target runs with one scale only."""
    for node, index in ((use.node, use.idx) for use in value.uses()):
        row = ops.get(node.op_type)
        if row is None or row.kind not in ("layer", "matmul"):
            continue
        if is_op(node, "MatMul"):
            return 1 if row.per_channel and index == 1 and rank(value) == 2 else None
        return 0 if node.attributes.get_int("transB", 0) else row.weight_axis
    return None


def _per(given: tuple[float, ...], value: Value, format: Format) -> NDArray[np.float64]:
    """One number, or one per channel."""
    count = () if format.axis is None else ((shape(value) or ())[format.axis] or 1,)
    return np.broadcast_to(np.asarray(given, np.float64) if count else np.float64(given[0]), count)


def _ends(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[Ends, Ends]:
    first, last = (tuple(map(float, end)) if end.ndim else float(end) for end in (low, high))
    return first, last


def _scaled(site: Site, value: Value, wanted: Override, where: str, config: QuantizationConfig) -> Site:
    """The range that gives back the scale and the zero point that are asked for.

    A symmetric format stays so where the zero points are in its middle, powers of two where the scales are some.
    """
    format, target = site.format, config.row
    scale, zero = _per(wanted.scale, value, format), _per(wanted.zero_point, value, format)
    given = QParams(scale.astype(np.float32), zero.astype(np.int32))
    if format.symmetric and not np.all(zero == format.middle):
        if target.symmetric:
            raise ConfigError(f"{where}: target {target.name!r} needs the zero point in the middle, {format.middle}")
        format = replace(format, symmetric=False, one_sided=False)
    if np.any(zero < format.lo) or np.any(zero > format.hi):
        _refuse(where, f"zero_point {_list(zero)}", f"a code of {format.dtype}, {format.lo} to {format.hi}")
    back = qparams(*ends(given, format), format)
    if not back.same(given) and format.scale == "pow2" and not target.pow2:
        format = replace(format, scale="float")
        back = qparams(*ends(given, format), format)
    if not back.same(given):
        wanted_scale = {"pow2": "a power of two", "half": "a number of float16"}.get(format.scale, "a normal float32")
        _refuse(where, f"scale {_list(scale)}", wanted_scale)
    return replace(site, format=format, range=_ends(*ends(given, format)))


def _refuse(where: str, given: str, needed: str) -> NoReturn:
    raise ConfigError(f"{where}: {given} is not {needed}")


def _list(numbers: NDArray[np.float64]) -> str:
    return ", ".join(map(str, numbers.reshape(-1)[:4].tolist())) + (", …" if numbers.size > 4 else "")
