"""Markup that no name can break: elements are made by `tag`, and what is not `Html` already is escaped.

What is hidden or steers is written as an escape, see `visible_text`: names come out of files that others made.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from quark_onnx.core.visible_text import visible


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, *inside: str, **attributes: object) -> Html:
    """An element around `inside`, one after the other. `_` in names of attributes stands for `-`, and a last one for
    nothing: `class_`. Attributes that are empty are left out.
    """
    given = {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items()}
    written = "".join(f' {key}="{_escaped(value)}"' for key, value in given.items() if value)
    return Html(f"<{name}{written}>{joined(inside)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """The parts one after the other, escaped where they are text."""
    return Html("".join(part if isinstance(part, Html) else _escaped(part) for part in parts))


def _escaped(text: str) -> str:
    return escape(visible(text))
