"""Encodings files of a simulation: made of its quantizers, and read into them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.errors import PlanError, nearest
from quark_onnx.core.plan import Plan
from quark_onnx.encodings import Encoding, EncodingFile, Merged, from_plan, into_plan
from quark_onnx.encodings.encoding_values import half
from quark_onnx.graph import Model
from quark_onnx.graph.view import is_op, shape
from quark_onnx.quantsim.quantizer import Quantizer
from quark_onnx.quantsim.simulated_grids import plan_of
from quark_onnx.stages.simulated_placement.aimet_operators import INHERITING

SHOWN = 8
"""Mismatches that an error names."""


def shapes_of(model: Model) -> dict[str, tuple[int, ...]]:
    """Shapes of all initializers."""
    found = {name: shape(value) for name, value in model.graph.initializers.items()}
    return {name: tuple(n or 0 for n in dims) for name, dims in found.items() if dims is not None}


def axes_of(shapes: Mapping[str, tuple[int, ...]], channels: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Axes of output and input channels of parameters: what encodings mean that do not say their axes."""
    return {tensor: (axis, _other(axis, len(shapes[tensor]))) for tensor, axis in channels.items() if tensor in shapes}


def _other(axis: int, rank: int) -> int:
    """Input channels are the other one of the first two axes, or (MatMul) of the last two."""
    return axis if rank == 1 else 1 - axis if axis < 2 else axis - 1


def encoding_file(model: Model, plan: Plan) -> EncodingFile:
    """The encodings of a simulation; its integers follow from them by rounding to nearest.

    Symmetric grids have a signed type, others an unsigned one, with the same values: version 2.0.0 says symmetry by the
    type alone, and AIMET's simulation refuses what it takes for another symmetry.
    """
    file = from_plan(replace(plan, codes={}, values={}), shapes_of(model))
    return _with_types(file, {tensor: encoding.symmetric for tensor, encoding in file.all.items()})


def load(
    model: Model,
    quantizers: Mapping[str, Quantizer],
    channels: Mapping[str, int],
    file: EncodingFile,
    *,
    strict: bool,
    freeze: bool,
    disable_missing: bool,
) -> tuple[dict[str, Quantizer], list[str]]:
    """Lay the grids of a file on quantizers; those that the file names are switched on. All or nothing.

    Args:
        quantizers: by tensor; they are changed, but for frozen ones.
        channels: parameter → axis of its output channels.
        disable_missing: switch off what the file does not name.

    Returns:
        The quantizers by tensor: tensors that shared one, and have different grids in the file, have their own; and a
        line for each thing in which file and quantizers differ.

    Raises:
        PlanError: scales do not fit the shape of their tensor, or `strict` and something differs.
    """
    file, mismatches = _without_wide(_expected(model, quantizers, file))
    file = _with_types(file, {tensor: quantizer.format.signed for tensor, quantizer in quantizers.items()})
    named = {t for t in file.all if t in quantizers}
    free = {t: q for t, q in quantizers.items() if not q.is_encoding_frozen()}
    used = dict.fromkeys(q for t, q in free.items() if t in named or (q.enabled and disable_missing))
    shapes = shapes_of(model)
    merged = into_plan(plan_of(model, used), file, shapes, axes_of(shapes, channels))
    mismatches += _mismatches(merged, quantizers, file)
    if strict:
        _refuse(mismatches)
    found = dict(quantizers)
    for quantizer in used:
        groups: dict[str, list[str]] = {}
        for tensor in quantizer.tensors:
            groups.setdefault(merged.plan.sites[tensor].group, []).append(tensor)
        if not named & set(quantizer.tensors):
            quantizer.enabled = False
            continue
        for group, tensors in groups.items():
            part = quantizer if len(groups) == 1 else quantizer.part(tensors)
            part.enabled = True
            part.take(merged.plan.sites[tensors[0]].format, merged.plan.qparams[group], freeze=freeze)
            found |= dict.fromkeys(tensors, part)
    return found, mismatches


def _without_wide(file: EncodingFile) -> tuple[EncodingFile, list[str]]:
    """The file without float16 and 32 bits, which are not simulated, and a line for each of them."""
    wide = {tensor: e.dtype for tensor, e in file.all.items() if e.is_float or e.bits == 32}
    lines = [f"{tensor!r}: {dtype} in the file, which is left float32" for tensor, dtype in wide.items()]
    return _without(file, wide), lines


def _without(file: EncodingFile, tensors: Collection[str]) -> EncodingFile:
    activations, parameters = (
        {t: e for t, e in section.items() if t not in tensors} for section in (file.activations, file.parameters)
    )
    return replace(file, activations=activations, parameters=parameters)


def _with_types(file: EncodingFile, signed: Mapping[str, bool]) -> EncodingFile:
    """The file with signed or unsigned codes where `signed` says so, and the same values."""
    activations, parameters = (
        {t: _with_type(e, signed.get(t, e.signed)) for t, e in section.items()}
        for section in (file.activations, file.parameters)
    )
    return replace(file, activations=activations, parameters=parameters)


def _with_type(encoding: Encoding, signed: bool) -> Encoding:
    if encoding.is_float or encoding.signed == signed:
        return encoding
    name = f"int{encoding.bits}" if signed else f"uint{encoding.bits}"
    codes = encoding.zero_point - encoding.lowest
    return replace(encoding, dtype=name, zero_point=codes - (half(encoding.bits) if signed else 0))


def _expected(model: Model, quantizers: Mapping[str, Quantizer], file: EncodingFile) -> EncodingFile:
    """The file without what a simulation has no quantizers for by design.

    These are int32 biases, which stay float, and (2.0.0) tensors that inherited the encoding of a quantized one.
    """
    gone = {t for t, e in file.all.items() if e.bits == 32 and t in model.graph.initializers}
    if file.version == "2.0.0":
        gone |= _inherited(model, file, {tensor for tensor, quantizer in quantizers.items() if quantizer.enabled})
    return _without(file, gone)


def _inherited(model: Model, file: EncodingFile, on: Collection[str]) -> set[str]:
    """Tensors without a quantizer that have the encoding of a quantized one, passed on by operators of INHERITING."""
    found, reached = file.all, {tensor for tensor in on if tensor in file.all}
    passing = [node for node in model.graph if is_op(node, *INHERITING)]
    size = -1
    while size < len(reached):
        size = len(reached)
        for node in passing:
            names = [v.name or "" for v in (*node.inputs, *node.outputs) if v is not None and v.name in found]
            known = [found[name] for name in names if name in reached]
            reached |= {name for name in names if any(_alike(found[name], encoding) for encoding in known)}
    return reached - set(on)


def _alike(one: Encoding, other: Encoding) -> bool:
    return replace(one, tensor=other.tensor).same(other)


def _mismatches(merged: Merged, quantizers: Mapping[str, Quantizer], file: EncodingFile) -> Iterator[str]:
    for tensor in file.all:
        if tensor not in quantizers:
            yield f"{tensor!r}: the simulation has no quantizer there{nearest(tensor, quantizers)}"
        elif not quantizers[tensor].enabled:
            yield f"{tensor!r}: its quantizer is off, the file has an encoding"
    for tensor, change in merged.changed.items():
        yield f"{tensor!r}: {change}"
    for tensor in merged.missing:
        yield f"{tensor!r}: its quantizer is on, the file has no encoding"
    for loss in merged.losses:
        yield str(loss)


def _refuse(mismatches: Sequence[str]) -> None:
    """Raise what a strict load says.

    Raises:
        PlanError: there are mismatches.
    """
    if mismatches:
        more = f" and {len(mismatches) - SHOWN} more" if len(mismatches) > SHOWN else ""
        raise PlanError(
            f"the encodings do not belong to this simulation: {'; '.join(mismatches[:SHOWN])}{more}; make the "
            "simulation with the same configuration and bit widths, or load with strict=False"
        )
