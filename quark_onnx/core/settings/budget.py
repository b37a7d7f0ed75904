"""The budget: how much worse than the float model a quantized one may be.

The score is that of the user's evaluator, higher is better. All else is measured at the outputs, on samples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.checked_fields import field, optional, real

SLACK = 1e-9
"""What the difference of two scores may be off by rounding."""

_SHARE = re.compile(r"([^%\s]+)\s*%")


def _drop(name: str, value: Any) -> float | str:
    """A number of at least 0, or a share such as "1%"."""
    if not isinstance(value, str):
        return float(real(0)(name, value))
    found = _SHARE.fullmatch(value.strip())
    try:
        number = float(found[1] if found else value)
    except ValueError as error:
        wanted = "a number such as 0.01, in units of the score, or a share of the float model's such as '1%'"
        raise ConfigError(f"{name} must be {wanted}, not {value!r}") from error
    return f"{real(0, 100)(f'the share in {name}', number):.12g}%" if found else float(real(0)(name, number))


@dataclass(frozen=True)
class Budget:
    """What a quantized model must keep. What is None may be whatever it is.

    max_drop       the score may fall by so much: a number, in its units; or a share of the float model's, "1%"
    min_sqnr       dB that every output is worth, see `Measured.db`
    min_agreement  share of rows with the same largest value, in every output that holds classes
    max_kl         KL(float ‖ quantized) in nats, mean over rows, of every output that holds classes

    Raises:
        ConfigError: a field is out of its range.
    """

    max_drop: float | str | None = field(None, optional(_drop))
    min_sqnr: float | None = field(None, optional(real(0)))
    min_agreement: float | None = field(None, optional(real(0, 1)))
    max_kl: float | None = field(None, optional(real(0)))

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, entry.metadata["check"](entry.name, getattr(self, entry.name)))

    def __bool__(self) -> bool:
        return any(getattr(self, entry.name) is not None for entry in fields(self))

    def drop_from(self, before: float) -> float | None:
        """By how much the float model's score may fall, in its units; None: by any."""
        if isinstance(self.max_drop, str):
            return abs(before) * float(self.max_drop.removesuffix("%")) / 100
        return self.max_drop

    def too_low(self, before: float, after: float) -> bool:
        """Whether a score is further below that of the float model than it may be; rounding is passed over."""
        drop = self.drop_from(before)
        return drop is not None and before - after > drop + SLACK
