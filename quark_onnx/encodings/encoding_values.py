"""What an encodings file says, whatever its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError
from quark_onnx.core.frozen_dict import FrozenDict

INTEGERS: dict[str, int] = {f"{sign}int{bits}": bits for bits in range(2, 33) for sign in ("", "u")}
"""Integer types by name, and their bits. AIMET writes widths that ONNX does not have in the same way."""

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
"""What is written."""

OLDER = ("0.4.0", "0.5.0")
"""What is only read: as 0.6.1; 0.4.0 has no type."""

PRODUCER = FrozenDict({"package": "quark-onnx"})


def half(bits: int) -> int:
    """Half of the codes: how far signed and unsigned types are apart."""
    return int(1 << (bits - 1))


def symmetry(signed: bool, zero_point: NDArray[np.int64]) -> tuple[bool, bool]:
    """Symmetric, and strict, as AIMET sees it in a file of version 2.0.0, which says neither."""
    strict = signed and bool(np.all(zero_point == -1))
    return strict or (signed and not zero_point.any()), strict


@dataclass(frozen=True, eq=False)
class Encoding:
    """The integer grid of a tensor, or the float type it is cast to: v ≈ (q − zero_point) · scale.

    tensor      its name in the float model
    dtype       "int8", "uint4", "int32", …, or "float16"
    scale       () per tensor; (channels,); with blocks the rank of the tensor, except that 1.0.0 has them in one row;
                no elements for a float type
    zero_point  as ONNX has it, in the shape of `scale`
    symmetric   the zero point is in the middle, or at the lowest code ("unsigned symmetric")
    strict      a symmetric grid that leaves its lowest code out
    axis        of the channels or blocks; None: per tensor, or a version that does not say it
    block       how many neighbours along the axis share a scale

    Raises:
        PlanError: the fields contradict each other.
    """

    tensor: str
    dtype: str
    scale: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    zero_point: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    symmetric: bool = False
    strict: bool = False
    axis: int | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        if self.dtype == "float16":
            return
        if self.scale.size == 0 or self.scale.shape != self.zero_point.shape:
            raise PlanError(f"there are {self.scale.size} scales and {self.zero_point.size} zero points")
        bad = self.scale[~(np.isfinite(self.scale) & (self.scale > 0))]
        if bad.size:
            raise PlanError(f"scale must be a finite number above 0, not {bad[0]}")
        codes = self.zero_point - self.lowest
        outside = codes[(codes < 0) | (codes >= 1 << self.bits)]
        if outside.size:
            lo = self.lowest
            raise PlanError(
                f"zero point {outside[0] + lo} (offset {-outside[0]}) is outside {self.dtype}, which has zero points "
                f"{lo}..{lo + (1 << self.bits) - 1} (offsets {1 - (1 << self.bits)}..0)"
            )
        if self.strict and not self.symmetric:
            raise PlanError("strict, but not symmetric")
        aside = codes[(codes != 0) & (codes != half(self.bits))]
        if self.symmetric and aside.size:
            raise PlanError(f"symmetric, but the zero point is not in the middle: offset {-aside[0]}")

    @property
    def bits(self) -> int:
        """Width of the type."""
        return INTEGERS.get(self.dtype, 16)

    @property
    def signed(self) -> bool:
        """Whether codes are two's complement; float types are no integers, signed or not."""
        return self.dtype.startswith("int")

    @property
    def lowest(self) -> int:
        """The lowest code of the type."""
        return -half(self.bits) if self.signed else 0

    @property
    def offset(self) -> NDArray[np.int64]:
        """As AIMET has it: minus the zero point that the unsigned type would have; one more in the middle of a strict
        grid, whose lowest code then stands for a value that is on the grid.
        """
        offset = self.lowest - self.zero_point
        return np.asarray(offset + (self.strict & (offset != 0)), np.int64)

    @property
    def is_float(self) -> bool:
        """Whether there is no grid: a cast."""
        return self.dtype not in INTEGERS

    @property
    def kind(self) -> str:
        """`tensor`, `channel` or `block`: what has one scale."""
        return "block" if self.block else "channel" if self.scale.ndim and not self.is_float else "tensor"

    def same(self, other: Encoding) -> bool:
        """Whether both say the same, to the bit."""
        plain = ("tensor", "dtype", "symmetric", "strict", "axis", "block")
        arrays = ("scale", "zero_point")
        return all(getattr(self, name) == getattr(other, name) for name in plain) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        )


@dataclass(frozen=True)
class Loss:
    """Something that could not be carried over, and the tensors it concerns; `left_out`: the file has none of them."""

    what: str
    tensors: tuple[str, ...]
    left_out: bool = False

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.tensors[:3])) + (", …" if len(self.tensors) > 3 else "")
        return f"{self.what}: {names} ({len(self.tensors)})" if len(self.tensors) > 1 else f"{self.what}: {names}"


@dataclass(frozen=True, eq=False)
class EncodingFile:
    """All encodings of a model, each section by tensor in the order of the file.

    version         of the file it was read from, or the default to write
    producer        package and version that wrote it
    quantizer_args  what 0.6.1 and 1.0.0 say of the whole model; None: derived when it is written
    excluded        names of layers that were left out (1.0.0)
    losses          what the source of the encodings had that no version can hold
    """

    activations: Mapping[str, Encoding]
    parameters: Mapping[str, Encoding]
    version: str = "1.0.0"
    producer: Mapping[str, Any] = field(default_factory=lambda: PRODUCER)
    quantizer_args: Mapping[str, Any] | None = None
    excluded: tuple[str, ...] | None = None
    losses: tuple[Loss, ...] = ()

    def __post_init__(self) -> None:
        for name in ("activations", "parameters", "producer"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))
        if both := self.activations.keys() & self.parameters.keys():
            raise PlanError(f"tensor {min(both)!r} is an activation and a parameter; keep one of the two entries")

    @property
    def all(self) -> Mapping[str, Encoding]:
        """Both sections, parameters first."""
        return {**self.parameters, **self.activations}

    def same(self, other: EncodingFile) -> bool:
        """Whether both have the same encodings in the same sections, whoever wrote them and in whatever order."""
        sections = ((self.activations, other.activations), (self.parameters, other.parameters))
        return all(a.keys() == b.keys() and all(a[name].same(b[name]) for name in a) for a, b in sections)
