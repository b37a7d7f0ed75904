"""Reading JSON strictly: an entry knows where it stands, and every message names that place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from quark_onnx.core.errors import ConfigError, nearest, reading

T = TypeVar("T")

DEEPEST = 50
"""Levels of lists and objects in a document; those that we know have eight."""


def read_json(path: Path, option: str) -> Entry:
    """The document in a file; a key that comes twice in one object is refused when the object is read.

    Args:
        option: what the user gave the file as, for messages.

    Raises:
        ConfigError: the file cannot be read, or is not JSON.
    """
    with reading(f"{option} {path}", ConfigError, "give a file of JSON", "is not JSON"):
        return Entry(json_of(path.read_text(encoding="utf-8"), _Pairs), str(path))


def json_of(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The document in a text; `pairs` makes objects.

    Raises:
        ValueError: it is not JSON, or nested deeper than anything that reads it has to bear.
    """
    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from error
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
    if any(isinstance(value, (dict, list)) for value in level):
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    return document


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def told(entries: Mapping[str, Entry], key: str, read: Callable[[Entry], T]) -> T | None:
    """What `read` makes of an entry; None where there is none."""
    return read(entries[key]) if key in entries else None


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which key came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)


@dataclass(frozen=True)
class Entry:
    """A value of the document, and where it stands."""

    value: Any
    source: str
    path: str = ""

    def wrong(self, what: str) -> NoReturn:
        """Refuse it: `what` completes a sentence that begins with its place."""
        raise ConfigError(f"{self.source}: {self.path or 'the document'} {what}")

    def object(self, known: Collection[str] | None = None, needed: Collection[str] = ()) -> dict[str, Entry]:
        """Its entries by key, if it is an object with `known` keys only, and all of `needed`."""
        if not isinstance(self.value, Mapping):
            self.wrong(f"must be an object, not {shown(self.value)}")
        if (twice := getattr(self.value, "twice", None)) is not None:
            self.wrong(f"has the key {twice!r} twice")
        for key in self.value:
            if not isinstance(key, str) or (known is not None and key not in known):
                self.wrong(f"has an unknown key {key!r}{nearest(str(key), known or ())}")
        if missing := [key for key in needed if key not in self.value]:
            self.wrong(f"has no {missing[0]!r}, which is required")
        return {key: Entry(v, self.source, f"{self.path}.{key}".lstrip(".")) for key, v in self.value.items()}

    def list(self, at_least: int = 0, of: str = "entries") -> list[Entry]:
        """Its elements, if it is a list of at least so many."""
        if not isinstance(self.value, (list, tuple)):
            self.wrong(f"must be a list, not {shown(self.value)}")
        if len(self.value) < at_least:
            self.wrong(f"needs at least {at_least} {of}")
        return [Entry(v, self.source, f"{self.path}[{i}]") for i, v in enumerate(self.value)]

    def text(self) -> str:
        """Itself, if it is a string that says something."""
        if not isinstance(self.value, str) or not self.value:
            self.wrong(f"must be a string, not {shown(self.value)}")
        return self.value

    def choice(self, known: Collection[str]) -> str:
        """Itself, if it is one of `known`."""
        if self.text() not in known:
            self.wrong(f"is {self.value!r}, which is unknown{nearest(self.value, known)}")
        return self.text()

    def flag(self) -> bool:
        """What the strings "True" and "False" say."""
        if self.value not in ("True", "False"):
            self.wrong(f'must be the string "True" or "False", not {shown(self.value)}')
        return bool(self.value == "True")

    def only_true(self, why: str) -> bool:
        """True; False is refused, with the reason."""
        if not self.flag():
            self.wrong(f'can only be "True": {why}')
        return True

    def number(self) -> float:
        """Itself, if it is a finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not finite(self.value):
            self.wrong(f"must be a finite number, not {shown(self.value)}")
        return float(self.value)


def finite(number: float) -> bool:
    """Whether a float can hold it: a whole number in JSON may have hundreds of digits."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def shown(value: Any) -> str:
    """The value as JSON has it, cut where it is long."""
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
