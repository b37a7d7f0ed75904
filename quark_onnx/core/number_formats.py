"""Number formats: which integers a quantizer may use, and how many scales it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from quark_onnx.core.errors import ConfigError, nearest

TYPES = {f"{sign}int{bits}": (bits, sign == "") for bits in range(2, 17) for sign in ("", "u")}
"""Integer types by name: bits, and whether they are signed. Widths that ONNX does not have are simulated."""

FLOATS = ("float16", "bfloat16")
"""Types that a model is converted to, without scales."""

ScaleType = Literal["float", "pow2", "half"]

Pairs = Literal["", "row", "tap"]
"""Which neighbours of a weight are pairs: none, along whole rows, or among the channels at one position of a kernel."""


@dataclass(frozen=True)
class Format:
    """An integer grid and its granularity.

    bits       width of the grid, 2..16; 17..31 are only simulated, 32 is that of biases
    signed     two's complement, or unsigned
    symmetric  zero point in the middle
    axis       one scale per index of this axis of the tensor; None is one scale for all of it
    block      one scale for so many neighbours along `axis`, for every index of the other axes
    scale      "float": any float32; "pow2": a power of two; "half": a number that float16 holds
    strict     symmetric grids leave their lowest code out (±127, not −128); None: signed ones above 4 bits, where it is
               no sixteenth of the grid, unless they are `one_sided`
    one_sided  symmetric grids have their zero point at the low end where no value is negative ("unsigned symmetric")
    stored     width of the ONNX type that holds the codes; None: the smallest that does (2, 4, 8 or 16 bits)
    safe_pairs these neighbours bound each other, so that no processor saturates: see `numerics.weight_pairs`
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = False
    axis: int | None = None
    block: int | None = None
    scale: ScaleType = "float"
    strict: bool | None = None
    one_sided: bool = False
    stored: int | None = None
    safe_pairs: Pairs = ""

    @property
    def lo(self) -> int:
        """The lowest code that a scale is computed for."""
        # a one-sided grid begins at the lowest code of its type: there a quantizer is a Relu
        usual = self.signed and self.bits > 4 and not self.one_sided
        strict = usual if self.strict is None else self.strict
        return (-(1 << (self.bits - 1)) if self.signed else 0) + (self.symmetric and strict)

    @property
    def hi(self) -> int:
        """The highest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point of a symmetric grid: 0, or half of the unsigned range."""
        return 0 if self.signed else 1 << (self.bits - 1)

    @property
    def storage_bits(self) -> int:
        """Width of the ONNX type that holds the codes."""
        return self.stored or next(width for width in (2, 4, 8, 16, 32) if self.bits <= width)

    @property
    def simulated(self) -> bool:
        """Whether the type that holds the codes has more of them than the grid."""
        return self.bits < self.storage_bits

    @property
    def wide(self) -> bool:
        """Whether QuantizeLinear has no type for the grid: it is simulated, in float64."""
        return 16 < self.bits < 32

    @property
    def dtype(self) -> str:
        """Name of the ONNX integer type that holds the codes, e.g. `int8`."""
        return f"{'' if self.signed else 'u'}int{self.storage_bits}"

    @property
    def unsigned(self) -> Format:
        """The same real values in the unsigned type: every code is half of the range higher."""
        strict = self.symmetric and self.signed and self.lo > -(1 << (self.bits - 1))
        return replace(self, signed=False, strict=strict or self.strict, safe_pairs="")

    @property
    def opset(self) -> int:
        """The first opset whose QuantizeLinear takes this format: 25 for 2 bits, 21 for 4, 16 and blocks, else 13.

        13 (and not 10) for all 8-bit formats, because `axis` arrived there and one rule is enough. float16 scales
        need 19.
        """
        by_type = {2: 25, 4: 21, 16: 21}.get(self.storage_bits, 19 if self.scale == "half" else 13)
        return max(by_type, 21 if self.block else 0)

    def __str__(self) -> str:
        symmetry = "symmetric" if self.symmetric else "asymmetric"
        scales = "per-tensor" if self.axis is None else f"per-channel (axis {self.axis})"
        scales = f"blocks of {self.block} (axis {self.axis})" if self.block else scales
        scales += {"float": "", "pow2": ", powers of two", "half": ", float16 scales"}[self.scale]
        width = f", {self.bits} bits used" if self.simulated else ""
        safe = ", safe pairs" if self.safe_pairs else ""
        return f"{self.dtype} {symmetry} {scales}{width}{safe}"


def type_name(value: object, field: str) -> str:
    """The canonical name of a quantized type.

    Takes "int8", "QInt8", "S8" in any case, and enum members of onnxruntime's or Quark's `QuantType`
    (their `name` is used).

    Raises:
        ConfigError: the value names no type that we have.
    """
    text = getattr(value, "name", value)
    if not isinstance(text, str):
        raise ConfigError(f"{field} must be a type name such as 'int8', not {value!r}")
    name = text.rsplit(".", 1)[-1].lower()
    aliases = {f"q{known}": known for known in TYPES} | {
        f"{known[0] if known[0] == 'u' else 's'}{known.rsplit('int', 1)[1]}": known for known in TYPES
    }
    aliases |= {"qfloat16": "float16", "fp16": "float16", "qbfloat16": "bfloat16", "bf16": "bfloat16"}
    name = aliases.get(name, name)
    if name not in TYPES and name not in FLOATS:
        raise ConfigError(f"{field}: unknown type {text!r}{nearest(text, (*TYPES, *FLOATS))}")
    return name
