"""Tables and text of generated pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_BRACES = re.compile(r"\{(?:[^{}`]|\{(?:[^{}`]|\{[^{}`]*\})*\})*\}")
"""A dictionary in a sentence, with those inside of it."""

NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown without line ends."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", text.replace("\n", " "))


def prose(text: str) -> str:
    """A sentence of ours for a page: dictionaries are code, and nothing is HTML by chance."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    safe = text.replace("<", "&lt;").replace("*", r"\*")
    return _BRACES.sub(lambda found: code(found[0].replace(r"\*", "*").replace("&lt;", "<")), safe)


def code(text: str) -> str:
    """The text as code; nothing if there is none."""
    return f"`{text}`" if text else ""


def codes(names: Iterable[str]) -> str:
    """Names, each as code."""
    return ", ".join(map(code, names)) or NONE


def anchored(name: str) -> str:
    """A name as code that links can lead to."""
    return f'<code id="{name}">{in_words(name)}</code>'


def in_words(name: str) -> str:
    """A name that a narrow screen breaks between its words alone."""
    return re.sub(r"(?<=[a-z\d])(?=[A-Z][a-z])|(?<=_)", "<wbr>", name)


def named(name: str, kinds: str, default: str, other: str = "") -> str:
    """The first cell of a setting: its name, and below it how it is also called, its type and its default."""
    below = [kinds if default == NONE else f"{kinds} = {default}", *([other] if other else [])]
    return f"{anchored(name)}<br><small>{'<br>'.join(below)}</small>"


def value(default: object) -> str:
    """A default as one would write it in Python; a dash where it is decided elsewhere."""
    return NONE if default is None else code(str(default) if isinstance(default, (int, float)) else repr(default))
