"""Protection, as a user asks for it: whether what 8 bits would ruin stays float, and what the user knows of it.

The value of the extra option `Protect`: True, False, or a list of names of nodes and tensors, exact ones, globs or
regular expressions. A name asks for more, one behind a "!" forbids.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.name_patterns import matching

OPTION = "extra option Protect"
WANTED = "it is True, False, or a list of names of nodes and tensors, those that it may not touch behind a '!'"
NOT = "!"


@dataclass(frozen=True)
class Protection:
    """What protection may do, and what it must.

    on         whether it looks for quantizers that do harm
    asked      patterns of nodes and tensors that stay float in any case
    forbidden  patterns of those that it leaves as they are; they count more
    """

    on: bool = True
    asked: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: object) -> Protection:
        """What a value of the option means; a list means that protection is on.

        Raises:
            ConfigError: it is none, or a list that says nothing or contradicts itself.
        """
        if isinstance(value, bool):
            return cls(value)
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{OPTION} does not take {value!r}: {WANTED}")
        for entry in value:
            if not isinstance(entry, str) or not entry.removeprefix(NOT):
                raise ConfigError(f"{OPTION} must hold names, not {entry!r}: {WANTED}")
        asked = tuple(entry for entry in value if not entry.startswith(NOT))
        forbidden = tuple(entry.removeprefix(NOT) for entry in value if entry.startswith(NOT))
        for entry in asked:
            if entry in forbidden:
                raise ConfigError(f"{OPTION} asks for {entry!r} and forbids it; remove one of the two")
        return cls(True, asked, forbidden)

    def named(self, names: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Of the nodes and tensors of a model, those that are asked for, and those that are forbidden.

        Raises:
            ConfigError: a pattern takes none of them, or is no regular expression.
        """
        asked, forbidden = (
            frozenset(matching(patterns, names, OPTION, "node or tensor")) for patterns in (self.asked, self.forbidden)
        )
        return asked - forbidden, forbidden
