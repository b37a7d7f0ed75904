"""Values → encodings files of versions 0.6.1, 1.0.0 and 2.0.0, as aimet-onnx 2.42 writes them.

A scale is a float64 there; a float32 is one exactly, and JSON has its shortest decimal that is read back as the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.errors import PlanError, nearest
from quark_onnx.encodings.encoding_values import VERSIONS, Encoding, EncodingFile, Loss, symmetry

Test = Callable[[Encoding], bool]


def write(file: EncodingFile, path: str | Path, version: str | None = None) -> list[Loss]:
    """Write the file, of its own version or another; what is not in it comes back.

    Raises:
        PlanError: there is no such version.
        ConfigError: the path cannot be written.
    """
    content = json.dumps(document(file, version), indent=4, sort_keys=True)
    with new_file(Path(path)) as temporary:
        temporary.write_text(content + "\n", encoding="utf-8")
    return [*file.losses, *losses(file, version)]


def document(file: EncodingFile, version: str | None = None) -> dict[str, Any]:
    """The JSON document, without what `losses` names as left out.

    Raises:
        PlanError: there is no such version.
    """
    version = _known(version or file.version)
    gone = {tensor for loss in _left_out(file.all.values(), version) for tensor in loss.tensors}
    sections = [[e for t, e in section.items() if t not in gone] for section in (file.activations, file.parameters)]
    content: dict[str, Any] = {"version": version, "producer": dict(file.producer)}
    if version == "2.0.0":
        return content | {"encodings": [_to_2_0_0(encoding) for encoding in (*sections[1], *sections[0])]}
    activations, parameters = sections
    content["quantizer_args"] = dict(
        _args(activations, parameters) if file.quantizer_args is None else file.quantizer_args
    )
    if version == "0.6.1":
        content["activation_encodings"] = {e.tensor: _to_0_6_1(e) for e in activations}
        return content | {"param_encodings": {e.tensor: _to_0_6_1(e) for e in parameters}}
    content |= {} if file.excluded is None else {"excluded_layers": list(file.excluded)}
    content["activation_encodings"] = [_to_1_0_0(e) for e in activations]
    return content | {"param_encodings": [_to_1_0_0(e) for e in parameters]}


def losses(file: EncodingFile, version: str | None = None) -> list[Loss]:
    """What a file of this version cannot say: tensors that are left out, then facts about the others.

    A tensor that is not named here is read back as it was.

    Raises:
        PlanError: there is no such version.
    """
    version = _known(version or file.version)
    everything = list(file.all.values())
    out = _left_out(everything, version)
    gone = {tensor for loss in out for tensor in loss.tensors}
    return out + _concerned([e for e in everything if e.tensor not in gone], _FACTS[version])


def _left_out(everything: Iterable[Encoding], version: str) -> list[Loss]:
    return [replace(loss, left_out=True) for loss in _concerned(everything, _LEFT_OUT[version])]


def _concerned(everything: Iterable[Encoding], tests: Mapping[str, Test]) -> list[Loss]:
    everything = list(everything)
    found = [Loss(what, tuple(e.tensor for e in everything if test(e))) for what, test in tests.items()]
    return [loss for loss in found if loss.tensors]


def _known(version: str) -> str:
    if version not in VERSIONS:
        raise PlanError(f"unknown version {version!r} of an encodings file to write{nearest(version, VERSIONS)}")
    return version


_LEFT_OUT: dict[str, dict[str, Test]] = {
    "0.6.1": {
        "blocks, which 0.6.1 does not have, left out": lambda e: e.block is not None,
        "int32 biases, which are written to 2.0.0 only, left out": lambda e: e.bits == 32,
    },
    "1.0.0": {
        "blocks over more than two axes, which 1.0.0 does not have, left out": lambda e: (
            bool(e.block) and bool(np.any(np.array(e.scale.shape[2:]) > 1))
        ),
        "int32 biases, which are written to 2.0.0 only, left out": lambda e: e.bits == 32,
    },
    "2.0.0": {
        "float16, which is no quantization in 2.0.0, left out": lambda e: e.is_float,
        "channels or blocks whose axis is not known (see `with_axes`), left out": lambda e: (
            e.kind != "tensor" and e.axis is None
        ),
    },
}
_FACTS_BEFORE_2: dict[str, Test] = {
    "the axis is not said: readers take that of the output channels": lambda e: e.axis is not None,
    "signed or unsigned is not said: readers take symmetric grids as signed and others as unsigned, with the same "
    "values": lambda e: not e.is_float and e.signed != e.symmetric,
    "that the lowest code is left out is not said": lambda e: e.strict and not np.any(e.offset),
}
_FACTS: dict[str, dict[str, Test]] = {
    "0.6.1": _FACTS_BEFORE_2 | {"one channel is not told from the whole tensor": lambda e: e.scale.shape == (1,)},
    "1.0.0": _FACTS_BEFORE_2,
    "2.0.0": {
        "symmetric or not is not said: readers take signed types with zero point 0 as symmetric, with −1 as strict": (
            lambda e: (e.symmetric, e.strict) != symmetry(e.signed, e.lowest - e.offset)
        ),
    },
}
"""By version: what the tensors lose, and which of them do."""


def _to_0_6_1(encoding: Encoding) -> list[dict[str, Any]]:
    if encoding.is_float:
        return [{"bitwidth": encoding.bits, "dtype": "float"}]
    common = {"bitwidth": encoding.bits, "dtype": "int", "is_symmetric": str(encoding.symmetric)}
    steps = (1 << encoding.bits) - 1
    return [
        {**common, "scale": scale, "offset": offset, "min": offset * scale, "max": (offset + steps) * scale}
        for scale, offset in zip(
            encoding.scale.reshape(-1).tolist(), encoding.offset.astype(np.float64).reshape(-1).tolist(), strict=True
        )
    ]


def _to_1_0_0(encoding: Encoding) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": encoding.tensor, "bw": encoding.bits, "enc_type": f"PER_{encoding.kind.upper()}"}
    if encoding.is_float:
        return entry | {"dtype": "FLOAT"}
    entry |= {"dtype": "INT", "is_sym": encoding.symmetric}
    entry |= {"block_size": encoding.block} if encoding.block else {}
    arrays = {"scale": encoding.scale, "offset": encoding.offset.astype(np.float64)}
    return entry | {key: in_row(array, encoding.axis).tolist() for key, array in arrays.items()}


def in_row(array: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Scales of blocks in one row as 1.0.0 has them: matrices by output, also where blocks run down their columns."""
    down = array.ndim == 2 and axis in (0, -2)
    return (array.T if down else array).reshape(-1)


def _to_2_0_0(encoding: Encoding) -> dict[str, Any]:
    zero_point = encoding.lowest - encoding.offset
    entry: dict[str, Any] = {
        "name": encoding.tensor,
        "output_dtype": encoding.dtype,
        "y_scale": encoding.scale.tolist(),
    }
    entry |= {"y_zero_point": zero_point.tolist()} if zero_point.any() else {}
    entry |= {} if encoding.axis is None else {"axis": encoding.axis}
    return entry | ({"block_size": encoding.block} if encoding.block else {})


def _args(activations: Iterable[Encoding], parameters: Iterable[Encoding]) -> dict[str, Any]:
    """What most tensors have."""
    parameters = list(parameters)
    return {
        "activation_bitwidth": _usual(e.bits for e in activations),
        "param_bitwidth": _usual(e.bits for e in parameters),
        "dtype": "int",
        "is_symmetric": _usual((e.symmetric for e in parameters), True),
        "per_channel_quantization": any(e.kind != "tensor" for e in parameters),
        "quant_scheme": "min_max",
    }


def _usual(values: Iterable[Any], default: Any = 8) -> Any:
    counted = Counter(values)
    return counted.most_common(1)[0][0] if counted else default
