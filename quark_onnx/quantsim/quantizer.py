"""The quantizer of a tensor in a simulation, with AIMET's names: settings that may be changed, and an encoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams, Site
from quark_onnx.core.settings.checked_fields import flag, whole
from quark_onnx.numerics.quantizer import dequantize, ends, qparams, quantize_half_up
from quark_onnx.quantsim.common.defs import QuantScheme, as_qtype, as_scheme, bits

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorEncoding:
    """One grid as AIMET shows it: v ≈ (q + offset) · delta with q = 0 … 2^bw − 1; min and max are its ends."""

    min: float
    max: float
    delta: float
    offset: int
    bw: int


class Quantizer:
    """The quantizer of a tensor, or of several tensors that must share their scale.

    Changing a setting drops the encoding; `compute_encodings` of the simulation makes a new one. While encodings are
    frozen nothing can be changed.

    Attributes:
        tensors: the names of those that it quantizes; the first is the one whose values are looked at.
        is_param: whether it quantizes a weight, bias or another parameter of an operator.
    """

    def __init__(
        self, sites: list[Site], enabled: bool, axis: int | None, shape: tuple[int, ...], touch: Callable[[], None]
    ):
        """Of one group of sites; made by the simulation.

        Args:
            axis: of the output channels of a parameter; None: it has one scale.
            shape: of a parameter.
            touch: called when anything changes.
        """
        self._sites = sorted(sites, key=lambda site: site.tensor != site.group)
        self._enabled = enabled
        self._axis, self._shape = axis, shape
        self._touch = touch
        self._q: QParams | None = None
        self._frozen = False
        self.tensors = tuple(site.tensor for site in self._sites)
        self.is_param = self._sites[0].role in ("weight", "bias")

    def __repr__(self) -> str:
        state = "frozen" if self._frozen else "ready" if self.is_initialized() else "no encoding"
        return f"Quantizer({', '.join(self.tensors)}: {self.format}, {'on' if self._enabled else 'off'}, {state})"

    @property
    def format(self) -> Format:
        """Width, symmetry and granularity of the grid."""
        return self._sites[0].format

    @property
    def sites(self) -> list[Site]:
        """One site per tensor, as a plan has them."""
        return list(self._sites)

    @property
    def qparams(self) -> QParams | None:
        """Scale and zero point; None: not computed yet."""
        return self._q

    @property
    def enabled(self) -> bool:
        """Whether the tensor is quantized."""
        return self._enabled

    @enabled.setter
    def enabled(self, on: bool) -> None:
        self._enabled = flag(f"{self._name}: enabled", on)
        self._touch()

    @property
    def bitwidth(self) -> int:
        """Width of the grid, 2..31."""
        return self.format.bits

    @bitwidth.setter
    def bitwidth(self, width: int) -> None:
        checked = bits(f"{self._name}: bitwidth", width)
        self._set(bits=checked, stored=8 if checked < 8 else None)

    def set_precision(self, precision: object) -> None:
        """Take another type: a `qtype`, its name, or a number of bits; a float type switches the quantizer off.

        Raises:
            ConfigError: there is no such type, or the encoding is frozen.
        """
        wanted = as_qtype(f"{self._name}: precision", precision)
        if wanted.floating:
            self._set()
            self.enabled = False
        else:
            self.bitwidth = wanted.bits

    @property
    def use_symmetric_encodings(self) -> bool:
        """Whether the zero point is in the middle."""
        return self.format.symmetric

    @use_symmetric_encodings.setter
    def use_symmetric_encodings(self, symmetric: bool) -> None:
        self._set(symmetric=flag(f"{self._name}: use_symmetric_encodings", symmetric))

    @property
    def use_strict_symmetric(self) -> bool:
        """Whether a symmetric grid leaves its lowest code out."""
        return bool(self.format.strict)

    @use_strict_symmetric.setter
    def use_strict_symmetric(self, strict: bool) -> None:
        self._set(strict=flag(f"{self._name}: use_strict_symmetric", strict))

    @property
    def use_unsigned_symmetric(self) -> bool:
        """Whether a symmetric grid begins at 0 where no value is negative."""
        return self.format.one_sided

    @use_unsigned_symmetric.setter
    def use_unsigned_symmetric(self, unsigned: bool) -> None:
        self._set(one_sided=flag(f"{self._name}: use_unsigned_symmetric", unsigned))

    def set_quant_scheme(self, scheme: QuantScheme | str) -> None:
        """Choose the range in another way than the simulation does.

        Raises:
            ConfigError: there is no such scheme, or the encoding is frozen.
        """
        method = as_scheme(scheme).method
        self._set()
        self._sites = [replace(site, method=method) for site in self._sites]

    def enable_per_channel_quantization(self, enable: bool = True) -> None:
        """One scale per output channel, or one for all.

        Raises:
            ConfigError: the tensor has no output channels.
        """
        wanted = flag(f"{self._name}: enable", enable)
        if wanted and self._axis is None:
            raise ConfigError(f"{self._name} has no output channels: only weights of layers have scales per channel")
        self._set(axis=self._axis if wanted else None, block=None)

    def enable_blockwise_quantization(self, axis: int, block_size: int) -> None:
        """One scale for so many neighbours along an axis, for every index of the other axes.

        Raises:
            ConfigError: the quantizer is frozen, is that of an activation, or the tensor has no such axis or blocks.
        """
        if not self.is_param:
            raise ConfigError(f"{self._name} has one scale: only weights have blocks")
        along = whole(0, len(self._shape) - 1)(f"{self._name}: axis", axis)
        length = self._shape[along]
        size = whole(1, length)(f"{self._name}: block_size", block_size)
        if length % size:
            raise ConfigError(f"{self._name}: block_size {size} does not divide the {length} of axis {along}")
        self._set(axis=along, block=size)

    @property
    def has_fixed_range(self) -> bool:
        """Whether the range is known, and not a matter of the data."""
        return self._sites[0].range is not None

    def set_fixed_encoding_range(self, range: tuple[float, float]) -> None:
        """Take the grid of a range (min, max) that is known, whatever the data are; 0 is made part of it.

        Raises:
            ConfigError: the ends are not finite, or not in this order.
        """
        both = np.asarray(range) if np.iterable(range) and not any(map(np.iterable, range)) else np.empty(0)
        if both.shape != (2,) or both.dtype.kind not in "iuf" or not np.isfinite(both).all() or both[0] >= both[1]:
            raise ConfigError(f"{self._name}: a fixed range needs two finite ends, the lower one first, not {range!r}")
        lo, hi = map(float, both)
        self._set(known=(lo, hi))
        low, high = (np.full(self._scales, end) for end in (lo, hi))
        self._q = qparams(low, high, self.format)

    def freeze_encodings(self) -> None:
        """Keep the encoding: computing and loading encodings pass it over.

        Raises:
            ConfigError: there is none yet.
        """
        if self._q is None:
            raise ConfigError(f"{self._name} has no encoding to freeze; compute or load encodings first")
        self._frozen = True

    def unfreeze_encodings(self) -> None:
        """Let the encoding be changed again."""
        self._frozen = False

    def is_encoding_frozen(self) -> bool:
        """Whether the encoding is kept."""
        return self._frozen

    def is_initialized(self) -> bool:
        """Whether it has an encoding."""
        return self._q is not None

    def get_encodings(self) -> list[TensorEncoding] | None:
        """One entry, or one per channel (of blocks: in the order of the array); None: not computed yet."""
        if self._q is None:
            return None
        scale, zero = np.broadcast_arrays(self._q.scale, self._q.zero_point)
        low, high = ends(QParams(scale.reshape(-1), zero.reshape(-1)), self.format)
        middle = self.format.lo - zero.reshape(-1)
        rows = zip(low, high, scale.reshape(-1), middle, strict=True)
        return [TensorEncoding(float(a), float(b), float(s), int(o), self.bitwidth) for a, b, s, o in rows]

    def quantize_dequantize(self, array: Array) -> NDArray[np.float32]:
        """What the simulation makes of an array; unchanged where the quantizer is off.

        Raises:
            ConfigError: there is no encoding yet.
        """
        if not self._enabled:
            return np.asarray(array, np.float32)
        if self._q is None:
            raise ConfigError(f"{self._name} has no encoding yet; call compute_encodings first")
        return dequantize(quantize_half_up(np.asarray(array), self._q, self.format), self._q, self.format)

    def take(self, format: Format, q: QParams, *, freeze: bool = False) -> None:
        """Another grid, from a file or from calibration."""
        carried = replace(format, stored=8 if format.bits < 8 else None)
        self._sites = [replace(site, format=carried) for site in self._sites]
        self._q, self._frozen = q, self._frozen or freeze
        self._touch()

    def part(self, tensors: list[str]) -> Quantizer:
        """A quantizer of some of the tensors alone, with these settings; the first one names its group."""
        own = [replace(site, group=tensors[0]) for site in self._sites if site.tensor in tensors]
        return Quantizer(own, self._enabled, self._axis, self._shape, self._touch)

    @property
    def _scales(self) -> tuple[int, ...]:
        """Shape of the scales."""
        axis, block = self.format.axis, self.format.block
        if axis is None or block is None:
            return () if axis is None else (self._shape[axis],)
        return (*self._shape[:axis], self._shape[axis] // block, *self._shape[axis + 1 :])

    @property
    def _name(self) -> str:
        return f"the quantizer of {self.tensors[0]!r}"

    def _set(self, known: tuple[float, float] | None = None, **changes: Any) -> None:
        if self._frozen:
            raise ConfigError(f"{self._name} is frozen; call its unfreeze_encodings() first")
        sites = (replace(site, format=replace(site.format, **changes)) for site in self._sites)
        self._sites = [replace(site, range=known or site.range) for site in sites]
        self._q = None
        self._touch()
