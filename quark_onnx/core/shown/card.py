"""The card of a value: its verdict, some tiles, and sections below, as a notebook shows it; in one line as text.

A card needs no network and no scripts. Text has the colour of the page around it, and lines and marks have colours that
stand out from white and from black: so it is readable in every theme, without asking which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from quark_onnx.core.shown.markup import Html, tag
from quark_onnx.core.visible_text import visible

Level = Literal["good", "fair", "poor", ""]

GOOD, LOOK = "good", "look here"
"""Verdicts."""

STYLE = Html(
    "<style>"
    ".quark-onnx{max-width:62rem;font-size:13px;line-height:1.45;color:inherit;overflow-wrap:anywhere;"
    "--good:#22955a;--fair:#b7791f;--poor:#d9483b;--mark:#3b82f6;--edge:rgba(128,128,128,.4)}"
    ".quark-onnx p,.quark-onnx ul{margin:.4rem 0}"
    ".quark-onnx ul{padding-left:1.2rem}"
    ".quark-onnx .quiet{opacity:.72}"
    ".quark-onnx .head b:first-child{font-size:1.15em;margin-right:.6rem}"
    ".quark-onnx .badge{border:1px solid var(--edge);border-left:.4rem solid var(--edge);border-radius:.3rem;"
    "padding:.05rem .5rem;margin-right:.5rem;font-weight:600;white-space:nowrap}"
    ".quark-onnx .good{border-left-color:var(--good)}"
    ".quark-onnx .fair{border-left-color:var(--fair)}"
    ".quark-onnx .poor{border-left-color:var(--poor)}"
    ".quark-onnx dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.5rem;margin:.6rem 0}"
    ".quark-onnx dl>div{border:1px solid var(--edge);border-left-width:.25rem;border-radius:.4rem;padding:.3rem .6rem}"
    ".quark-onnx dl>div.good{border-left-color:var(--good)}"
    ".quark-onnx dl>div.fair{border-left-color:var(--fair)}"
    ".quark-onnx dl>div.poor{border-left-color:var(--poor)}"
    ".quark-onnx dt{font-weight:400;opacity:.72;font-size:.92em}"
    ".quark-onnx dd{margin:0;font-size:1.3em;font-weight:600;line-height:1.3}"
    ".quark-onnx dd small{display:block;font-size:.7em;font-weight:400;opacity:.8}"
    ".quark-onnx .scroll{overflow-x:auto;margin:.6rem 0}"
    ".quark-onnx table{border-collapse:collapse;margin:0;width:100%;font-size:12px;table-layout:auto}"
    ".quark-onnx caption{caption-side:top;text-align:left;padding:.2rem 0;color:inherit;opacity:.8}"
    ".quark-onnx th,.quark-onnx td{text-align:left;vertical-align:top;padding:.2rem .5rem;white-space:normal;"
    "border-bottom:1px solid var(--edge);max-width:24rem}"
    ".quark-onnx thead th{vertical-align:bottom}"
    ".quark-onnx tbody th{font-weight:500;min-width:8rem}"
    ".quark-onnx .n{text-align:right;white-space:nowrap;overflow-wrap:normal;font-variant-numeric:tabular-nums}"
    ".quark-onnx td.bar{width:45%;min-width:5rem;vertical-align:middle}"
    ".quark-onnx svg{display:block;width:100%}"
    ".quark-onnx rect.good{fill:var(--good)}.quark-onnx rect.fair{fill:var(--fair)}"
    ".quark-onnx rect.poor{fill:var(--poor)}.quark-onnx rect.mark{fill:var(--mark)}"
    ".quark-onnx rect.back{fill:var(--edge);fill-opacity:.5}"
    "</style>"
)


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
        tiles = [tag("dl", *map(_tile, self.tiles))] if self.tiles else []
        return str(tag("div", STYLE, head, *tiles, *self.sections, class_="quark-onnx"))

    @property
    def line(self) -> str:
        """As text."""
        facts = (f"{tile.label} {tile.value}" + (f" ({tile.note})" if tile.note else "") for tile in self.tiles)
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
    return tag("div", tag("dt", tile.label), tag("dd", tile.value, *note), class_=tile.level)
