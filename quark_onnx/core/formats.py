"""Number formats: which integers a quantizer may use, and how many scales it has."""

from __future__ import annotations

from dataclasses import dataclass

from quark_onnx.core.errors import ConfigError, nearest

TYPES = {f"{sign}int{bits}": (bits, sign == "") for bits in (4, 8, 16) for sign in ("", "u")}


@dataclass(frozen=True)
class Format:
    """An integer grid and its granularity.

    bits       width of the grid, 2..16; it is stored in the smallest ONNX type that holds it (4, 8 or 16 bits)
    signed     two's complement, or unsigned
    symmetric  zero point in the middle; signed grids above 4 bits leave the lowest code out ("strict":
               ±127, not −128); with 4 bits it is a sixteenth of the grid and worth having
    axis       one scale per index of this axis of the tensor; None is one scale for all of it
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = False
    axis: int | None = None

    @property
    def lo(self) -> int:
        """The lowest code that a scale is computed for."""
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.symmetric and self.bits > 4 else 0)

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
        return next(width for width in (4, 8, 16, 32) if self.bits <= width)

    @property
    def dtype(self) -> str:
        """Name of the ONNX integer type that holds the codes, e.g. `int8`."""
        return f"{'' if self.signed else 'u'}int{self.storage_bits}"

    @property
    def opset(self) -> int:
        """The first opset whose QuantizeLinear takes this format: 21 for 4 and 16 bits, 13 otherwise.

        13 (and not 10) for all 8-bit formats, because `axis` arrived there and one rule is enough.
        """
        return 13 if self.storage_bits in (8, 32) else 21

    def __str__(self) -> str:
        symmetry = "symmetric" if self.symmetric else "asymmetric"
        scales = "per-tensor" if self.axis is None else f"per-channel (axis {self.axis})"
        width = "" if self.bits == self.storage_bits else f", {self.bits} bits used"
        return f"{self.dtype} {symmetry} {scales}{width}"


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
    name = aliases.get(name, name)
    if name not in TYPES:
        raise ConfigError(f"{field}: unknown type {text!r}{nearest(text, TYPES)}")
    return name
