"""The card of a value: its verdict, some tiles, and sections below, as a notebook shows it; in one line as text.

A card needs no network and no scripts, and shows what its value holds: nothing is computed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from quark_onnx.core.shown.markup import Html, tag
from quark_onnx.core.shown.style import STYLE
from quark_onnx.core.visible_text import visible

Level = Literal["good", "fair", "poor", ""]

GOOD, LOOK = "good", "look here"
"""Verdicts."""


class Tile(NamedTuple):
    """A figure: what it is, its value, what else there is to say, and how good it is."""

    label: str
    value: str
    note: str = ""
    level: Level = ""


@dataclass(frozen=True)
class Card:
    """What is shown of a value.

    title     what it is
    verdict   in a word or two, what `level` says; empty: there is none
    summary   the sentence behind it
    sections  below the tiles
    """

    title: str
    verdict: str
    summary: str
    tiles: Sequence[Tile]
    sections: Sequence[Html] = ()
    level: Level = ""

    @property
    def html(self) -> str:
        """For notebooks."""
        badge = [tag("span", self.verdict, class_=f"badge {self.level}".strip())] if self.verdict else []
        head = tag("p", tag("b", self.title), *badge, self.summary, class_="head")
        tiles = [tag("div", *map(_tile, self.tiles), class_="tiles")] if self.tiles else []
        return str(tag("div", STYLE, head, *tiles, *self.sections, class_="quark-onnx"))

    @property
    def line(self) -> str:
        """As text."""
        facts = (f"{tile.label} {tile.value}" for tile in self.tiles)
        said = ": ".join(part for part in (self.verdict, self.summary) if part)
        return visible(f"<{self.title}: {'; '.join(part for part in (said, *facts) if part)}>")


class Shown:
    """A value that a notebook shows as a card, and `print` as a line. A dataclass needs `repr=False` to be one."""

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._card().line

    def _repr_html_(self) -> str:
        return self._card().html


def _tile(tile: Tile) -> Html:
    note = [tag("small", tile.note)] if tile.note else []
    return tag("div", tag("span", tile.label), tag("b", tile.value), *note, class_=f"tile {tile.level}".strip())
