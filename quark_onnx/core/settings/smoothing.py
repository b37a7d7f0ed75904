"""Settings of SmoothQuant, of the options SmoothQuant and SmoothAlpha."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest

NAME = "smooth_quant"
"""What Quark's SmoothQuantConfig calls itself."""


@dataclass(frozen=True)
class Smoothing:
    """How activations are smoothed.

    on      at all
    judged  only where products gain by it on rows that nothing was learned of
    alpha   of all sites; None: the best for each
    """

    on: bool
    judged: bool = False
    alpha: float | None = None

    @classmethod
    def of(cls, option: bool | str | Mapping[str, Any], alpha: float | None) -> Smoothing:
        """From the two options; both are checked."""
        if isinstance(option, Mapping):
            return cls(True, alpha=float(option.get("alpha", 0.5)))
        judged = option == "auto" and alpha is None
        return cls(option is not False, judged, None if alpha is None else float(alpha))


def smooth_quant_option(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Quark's SmoothQuantConfig as a dictionary: its fields are `name` and `alpha`.

    Raises:
        ConfigError: another field, or a value that it does not take.
    """
    for key in value:
        if key not in ("name", "alpha"):
            raise ConfigError(f"extra option SmoothQuant: unknown field {key!r}{nearest(str(key), ('alpha',))}")
    if value.get("name", NAME) != NAME:
        raise ConfigError(f"extra option SmoothQuant: its name must be {NAME!r}, not {value['name']!r}")
    alpha = value.get("alpha", 0.5)
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha <= 1:
        raise ConfigError(f"extra option SmoothQuant: alpha must be above 0 and at most 1, not {alpha!r}")
    return value
