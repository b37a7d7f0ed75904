"""Dataclass fields that check their value: ranges are written once, beside the default.

A check takes the field's name and a value, and gives back the value in its plain Python type.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NoReturn

from quark_onnx.core.errors import ConfigError, nearest

Check = Callable[[str, Any], Any]


def field(default: Any, check: Check) -> Any:
    """A dataclass field with a default and a check in its metadata."""
    return dataclasses.field(default=default, metadata={"check": check})


def _wrong(name: str, wanted: str, value: object) -> NoReturn:
    raise ConfigError(f"{name} must be {wanted}, not {value!r}")


def flag(name: str, value: Any) -> bool:
    """True or False."""
    return value if isinstance(value, bool) else _wrong(name, "True or False", value)


def text(name: str, value: Any) -> str:
    """A string that is not empty."""
    return value if isinstance(value, str) and value else _wrong(name, "a text", value)


def whole(low: int, high: int | None = None) -> Check:
    """A whole number from `low` to `high`."""
    wanted = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"

    def check(name: str, value: Any) -> int:
        fits = isinstance(value, Integral) and not isinstance(value, bool)
        return int(value) if fits and low <= value and (high is None or value <= high) else _wrong(name, wanted, value)

    return check


def real(low: float = -math.inf, high: float = math.inf, *, above: float = -math.inf, below: float = math.inf) -> Check:
    """A finite number from `low` to `high`, strictly above `above` and below `below`."""
    bounds = {"at least": low, "above": above, "at most": high, "below": below}
    said = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if math.isfinite(bound))
    wanted = f"a number {said or 'that is finite'}"

    def check(name: str, value: Any) -> float:
        fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        inside = fits and low <= value <= high and above < value < below
        return float(value) if inside else _wrong(name, wanted, value)

    return check


def optional(check: Check) -> Check:
    """None, or what `check` takes."""
    return lambda name, value: None if value is None else check(name, value)


def pair(first: Check, second: Check) -> Check:
    """Two values, each with its own check."""

    def check(name: str, value: Any) -> tuple[Any, Any]:
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
            _wrong(name, "a pair of numbers", value)
        return first(f"the first of {name}", value[0]), second(f"the second of {name}", value[1])

    return check


def choice(known: Sequence[str]) -> Check:
    """One of `known`."""

    def check(name: str, value: Any) -> str:
        if value not in known:
            raise ConfigError(f"{name}: unknown value {value!r}{nearest(str(value), known)}")
        return str(value)

    return check


def subset(known: Sequence[str]) -> Check:
    """At least one of `known`."""

    def check(name: str, value: Any) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            _wrong(name, f"a list of some of {', '.join(known)}", value)
        return tuple(choice(known)(name, entry) for entry in value)

    return check


def names(name: str, value: Any) -> tuple[str, ...]:
    """Names, globs or regular expressions of nodes, or operator types; none is as good as several."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{name} must be a list of names, not {value!r}")
    for entry in value:
        if not isinstance(entry, str):
            raise ConfigError(f"{name} must hold strings, not {entry!r}")
    return tuple(value)


def subgraphs(name: str, value: Any) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Pairs ([start nodes], [end nodes])."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{name} must be a list of pairs ([start nodes], [end nodes]), not {value!r}")
    for entry in value:
        if isinstance(entry, str) or not isinstance(entry, Sequence) or len(entry) != 2:
            raise ConfigError(f"{name} must hold pairs ([start nodes], [end nodes]), not {entry!r}")
    return tuple((names(name, start), names(name, end)) for start, end in value)


def named(value: object, known: Sequence[str], name: str, aliases: Mapping[str, str] | None = None) -> str:
    """One of `known`, in any case, under an alias too, from a string or an enum member of onnxruntime or Quark.

    Raises:
        ConfigError: none of them.
    """
    text = str(getattr(value, "name", value)).rsplit(".", 1)[-1]
    names = {choice.lower(): choice for choice in known}
    names |= {alias.lower(): choice for alias, choice in (aliases or {}).items() if choice in known}
    if text.lower() in names:
        return names[text.lower()]
    raise ConfigError(f"{name}: unknown value {text!r}{nearest(text, known)}")
