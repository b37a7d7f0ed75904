"""Encodings files of AIMET → values. Facts: the formats of aimet-onnx 2.42, and files that it wrote.

0.6.1  two objects, tensor → list of grids, one per channel; is_symmetric is "True" or "False"; no axis, no blocks.
       0.5.0 and 0.4.0 alike, 0.4.0 without a type
1.0.0  two lists of entries, scale and offset in one row; blocks, but no axis
2.0.0  one list of entries with the names of QuantizeLinear's inputs and attributes

A symmetric grid is a signed type there; its offset is −2^(bits − 1), one more where it is strict, 0 where it is
"unsigned symmetric".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError, reading
from quark_onnx.core.json_reading import json_of
from quark_onnx.encodings.encoding_values import (
    INTEGERS,
    OLDER,
    PRODUCER,
    VERSIONS,
    Encoding,
    EncodingFile,
    half,
    symmetry,
)
from quark_onnx.encodings.json_fields import Spot

SECTIONS = ("activation_encodings", "param_encodings")
NOTES = ("producer", "quantizer_args")
WIDTHS = tuple(dict.fromkeys(INTEGERS.values()))
KINDS = ("PER_TENSOR", "PER_CHANNEL", "PER_BLOCK")
Source: TypeAlias = "str | Path | Mapping[str, Any] | Sequence[Any]"

RANK = 8
"""Axes run from −RANK to RANK − 1; the tensor's own rank is checked where it is known."""


def read(source: Source, parameters: Collection[str] = ()) -> EncodingFile:
    """The encodings of a file, or of a document that was parsed already.

    Args:
        source: a path, or what was read of one; a section of parameters alone is taken, too.
        parameters: names of the model's initializers, by which 2.0.0 is sorted into parameters and activations.
            Without them, parameters are what has an axis or 32 bits.

    Raises:
        PlanError: no such file, no encodings, or something in it is wrong: file, JSON path and tensor are named.
    """
    top = Spot(named(source), "", _whole(_parsed(Path(source)) if isinstance(source, (str, Path)) else source))
    if not isinstance(top.value, Mapping) or "version" not in top.value:
        top.fail("this is no encodings file: it must be an object with a 'version'")
    if top.value["version"] not in (*OLDER, *VERSIONS):
        known = ", ".join((*OLDER, *VERSIONS))
        top.fail(f"version {top.value['version']!r} cannot be read; export the encodings again in one of {known}")
    version = top.value["version"]
    sections = ("encodings",) if version == "2.0.0" else SECTIONS
    top.fields(("version", *sections), (*NOTES, *(("excluded_layers",) if version == "1.0.0" else ())))
    notes = {note: _object(top[note]) if note in top.value else None for note in NOTES}
    excluded = [spot.text() for spot in _listed(top["excluded_layers"])] if "excluded_layers" in top.value else None
    found = [_section(top[section], version) for section in sections]
    activations, weights = found if len(found) == 2 else _told_apart(found[0], parameters)
    if both := activations.keys() & weights.keys():
        top.fail(f"tensor {min(both)!r} is in {' and in '.join(SECTIONS)}; keep one of the two entries")
    return EncodingFile(
        activations,
        weights,
        version,
        notes["producer"] or PRODUCER,
        notes["quantizer_args"],
        None if excluded is None else tuple(excluded),
    )


def named(source: object) -> str:
    """What messages call a source."""
    return str(source) if isinstance(source, (str, Path)) else "encodings"


def _whole(document: Any) -> Any:
    """A document; what is only a section of parameters, as AdaRound of AIMET 1.x writes it, in one of its version."""
    if document and isinstance(document, (list, tuple)):
        return {"version": "1.0.0", "activation_encodings": [], "param_encodings": document}
    bare = isinstance(document, Mapping) and document and all(isinstance(grids, list) for grids in document.values())
    return {"version": "0.6.1", "activation_encodings": {}, "param_encodings": document} if bare else document


def _parsed(path: Path) -> Any:
    if not path.exists():
        raise PlanError(f"there is no encodings file {path}")
    with reading(path, PlanError, "export them again", "is no encodings file: not JSON, or not sound"):
        return json_of(path.read_text(encoding="utf-8"), _unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; JSON itself takes the last of equal names, so that one grid would vanish."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is there twice in one object")
        found[key] = value
    return found


def _object(spot: Spot) -> Mapping[str, Any]:
    return spot.fields((), spot.value if isinstance(spot.value, Mapping) else ())


def _listed(spot: Spot) -> Iterator[Spot]:
    if not isinstance(spot.value, list | tuple):
        spot.fail(f"must be a list, not {type(spot.value).__name__}")
    return iter(spot)


def _section(spot: Spot, version: str) -> dict[str, Encoding]:
    found: dict[str, Encoding] = {}
    for entry, encoding in _entries(spot, version):
        if encoding.tensor in found:
            entry.fail("the tensor has an entry already; keep one of the two")
        found[encoding.tensor] = encoding
    return found


def _entries(spot: Spot, version: str) -> Iterator[tuple[Spot, Encoding]]:
    if version in ("1.0.0", "2.0.0"):
        one: Callable[[Spot], Encoding] = _of_1_0_0 if version == "1.0.0" else _of_2_0_0
        for entry in _listed(spot):
            if not isinstance(entry.value, Mapping) or "name" not in entry.value:
                entry.fail("must be an object with a 'name'")
            about = entry.of(entry["name"].text())
            yield about, _made(about, one)
    else:
        for tensor in _object(spot):
            about = spot[tensor].of(tensor)
            yield about, _made(about, lambda entry: _of_0_6_1(entry, typed=version != "0.4.0"))


def _made(spot: Spot, one: Callable[[Spot], Encoding]) -> Encoding:
    """The entry's encoding; what contradicts itself is told with the entry's place."""
    try:
        return one(spot)
    except PlanError as error:
        if str(error).startswith(spot.file):
            raise
        return spot.fail(str(error))


def _told_apart(
    found: Mapping[str, Encoding], parameters: Collection[str]
) -> tuple[dict[str, Encoding], dict[str, Encoding]]:
    names = set(parameters) or {t for t, e in found.items() if e.axis is not None or e.bits == 32}
    return {t: e for t, e in found.items() if t not in names}, {t: e for t, e in found.items() if t in names}


def _of_0_6_1(spot: Spot, typed: bool) -> Encoding:
    channels = [spot[i] for i in range(len(spot.entries()))]
    for channel in channels:
        if isinstance(channel.value, Mapping) and channel.value.get("dtype") == "float":
            channel.fields(("bitwidth", "dtype"))
            channel["bitwidth"].one_of((16,))
            if len(channels) == 1:
                return Encoding(spot.tensor or "", "float16")
        needed = ("bitwidth", "scale", "offset", "is_symmetric", *(("dtype",) if typed else ()))
        channel.fields(needed, ("min", "max", "dtype"))
        ends = [channel[end].real() for end in ("min", "max") if end in channel.value]
        if ends != sorted(ends):
            channel.fail(f"min is {ends[0]:g}, above max, which is {ends[1]:g}")
        if "dtype" in channel.value:
            channel["dtype"].one_of(("int", "float"))
    first = channels[0]
    bits = first["bitwidth"].one_of(WIDTHS)
    symmetric = first["is_symmetric"].one_of(("True", "False")) == "True"
    for channel in channels[1:]:
        for key in ("bitwidth", "is_symmetric", "dtype"):
            if channel.value.get(key) != first.value.get(key):
                channel[key].fail(f"is {channel.value.get(key)!r}, but {first.value.get(key)!r} in the first channel")
    scale = np.array([channel["scale"].positive() for channel in channels])
    offset = np.array([channel["offset"].whole(1 - (1 << bits), 0) for channel in channels], np.int64)
    shape = () if len(channels) == 1 else (len(channels),)
    return _grid(spot, bits, symmetric, scale.reshape(shape), offset.reshape(shape))


def _of_1_0_0(spot: Spot) -> Encoding:
    kind = spot["enc_type"].text() if "enc_type" in spot.value else ""
    if kind == "LPBQ" or "zero_point_shift" in spot.value:
        spot.fail(
            "low-power block quantization and zero points of half a step have no counterpart here; "
            "export the model with per-block or per-channel encodings"
        )
    if spot.value.get("dtype") == "FLOAT":
        spot.fields(("name", "dtype", "bw", "enc_type"))
        spot["bw"].one_of((16,))
        spot["enc_type"].one_of(("PER_TENSOR",))
        return Encoding(spot.tensor or "", "float16")
    needed = ("name", "enc_type", "dtype", "bw", "is_sym", "scale", "offset")
    spot.fields((*needed, "block_size") if kind == "PER_BLOCK" else needed)
    spot["enc_type"].one_of(KINDS)
    spot["dtype"].one_of(("INT", "FLOAT"))
    bits = spot["bw"].one_of(WIDTHS)
    symmetric = spot["is_sym"].one_of((True, False))
    spot["scale"].entries()
    scale, offset = spot["scale"].reals(), spot["offset"].wholes(1 - (1 << bits), 0)
    if scale.ndim != 1 or scale.shape != offset.shape:
        spot.fail(f"scale and offset must be lists of equal length: shapes {scale.shape} and {offset.shape}")
    if kind == "PER_TENSOR":
        if scale.size != 1:
            spot["scale"].fail(f"must have one number, not {scale.size}: enc_type is PER_TENSOR")
        scale, offset = scale.reshape(()), offset.reshape(())
    block = spot["block_size"].whole(1, 2**31) if kind == "PER_BLOCK" else None
    return _grid(spot, bits, symmetric, scale, offset, block)


def _grid(
    spot: Spot,
    bits: int,
    symmetric: bool,
    scale: NDArray[np.float64],
    offset: NDArray[np.int64],
    block: int | None = None,
) -> Encoding:
    """From offsets: −2^(bits − 1) in the middle of a symmetric grid, or one more all over where it is strict."""
    middle = half(bits)
    strict = symmetric and bool(np.any(offset == 1 - middle)) and not np.any(offset == -middle)
    codes = np.where(offset == 1 - middle, middle, -offset) if strict else -offset
    dtype = f"{'' if symmetric else 'u'}int{bits}"
    zero_point = np.asarray(codes - middle if symmetric else codes, np.int64)
    return Encoding(spot.tensor or "", dtype, scale, zero_point, symmetric, strict, None, block)


def _of_2_0_0(spot: Spot) -> Encoding:
    if "per_block_int_scale" in spot.value:
        spot.fail("low-power block quantization has no counterpart here; export the model with per-block encodings")
    spot.fields(("name", "output_dtype", "y_scale"), ("y_zero_point", "axis", "block_size"))
    dtype = spot["output_dtype"].one_of(tuple(INTEGERS))
    scale = spot["y_scale"].reals()
    lowest = Encoding(spot.tensor or "", dtype, np.ones(()), np.zeros((), np.int64)).lowest
    highest = lowest + (1 << INTEGERS[dtype]) - 1
    zero_point = np.zeros(scale.shape, np.int64)
    if "y_zero_point" in spot.value:
        zero_point = spot["y_zero_point"].wholes(lowest, highest)
        if zero_point.shape != scale.shape:
            spot["y_zero_point"].fail(f"has shape {zero_point.shape}, but y_scale has {scale.shape}")
    block = spot["block_size"].whole(1, 2**31) if "block_size" in spot.value else None
    axis = spot["axis"].whole(-RANK, RANK - 1) if "axis" in spot.value else None
    if axis is None and block is None and scale.shape == (1,):
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    if (axis is None) != (scale.ndim == 0):
        spot.fail(f"an axis is needed where there is more than one scale, and only there: shape {scale.shape}")
    if block is None and scale.ndim > 1:
        spot["y_scale"].fail("nested lists of scales need a block_size")
    if block is not None and (axis is None or not -scale.ndim <= axis < scale.ndim):
        spot.fail(f"blocks need scales in lists nested beyond their axis {axis}: shape {scale.shape}")
    symmetric, strict = symmetry(dtype.startswith("int"), zero_point)
    zero_point = np.zeros(scale.shape, np.int64) if strict else zero_point
    return Encoding(spot.tensor or "", dtype, scale, zero_point, symmetric, strict, axis, block)
