"""Charts of a card: a bar for each row, and a strip of what stands in a row. Inline SVG, as wide as there is room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from quark_onnx.core.shown.card import Level
from quark_onnx.core.shown.markup import Html, joined, tag
from quark_onnx.core.shown.tables import framed

CELLS = 400
"""Cells of a strip, at most."""

TALL = 8
"""Height of a drawing, in its own units; its width has others."""

Kind = Literal["good", "fair", "poor", "mark", "back"]
"""Colours: of levels, of what is neither good nor bad, and of what lies behind."""


class Bar(NamedTuple):
    """A row: its name, the share of the width that the bar takes, what the figure is, and how good that is."""

    name: str
    share: float
    figure: str
    level: Level = ""


def bars(caption: str, rows: Sequence[Bar], total: int) -> Html:
    """A bar for each row of `total`; nothing where there are none."""
    if not rows:
        return Html()
    body = [
        tag(
            "tr",
            tag("th", row.name, scope="row"),
            tag("td", meter(row.share, row.level or "mark"), class_="bar"),
            tag("td", row.figure, class_="n"),
        )
        for row in rows
    ]
    return framed(tag("caption", caption), tag("tbody", *body), more=total - len(rows))


def meter(share: float, kind: Kind) -> Html:
    """A bar over so much of the width, on a quiet one."""
    share = 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0)
    cells = (_cell(0, 100, "back"), _cell(0, round(100 * share, 1), kind))
    return _drawing(cells, 100, "0.7em")


def strip(levels: Sequence[Level], names: Sequence[str]) -> Html:
    """A cell for each of what stands in a row, with its name; where many share one, it is that of the worst.

    What is not good is half as high, for those who do not see the colour.
    """
    step = max(1, math.ceil(len(levels) / CELLS))
    worst = [min(levels[at : at + step], key=_WORST.index) for at in range(0, len(levels), step)]
    cells, at = [], 0
    for level, run in groupby(worst):
        width = len(list(run))
        first, last = names[at * step], names[min((at + width) * step, len(names)) - 1]
        title = tag("title", first if first == last else f"{first} … {last}")
        cells.append(_cell(at, width, level or "back", title, height=TALL // 2 if level in ("fair", "poor") else TALL))
        at += width
    return _drawing(cells, len(worst), "1.1em") if levels else Html()


_WORST: Sequence[Level] = ("poor", "fair", "good", "")


def _cell(at: float, width: float, kind: Kind, *inside: Html, height: int = TALL) -> Html:
    return tag("rect", *inside, x=f"{at:g}", y=TALL - height, width=f"{width:g}", height=height, class_=kind)


def _drawing(cells: Iterable[Html], width: int, height: str) -> Html:
    """Cells side by side, as wide as the room; figures or words beside them say the same."""
    box = f"0 0 {width} {TALL}"
    how = {"viewBox": box, "preserveAspectRatio": "none", "style": f"height:{height}", "aria_hidden": "true"}
    return tag("svg", joined(cells), **how)
