"""Lists and tables of a card: the first rows, and how many more there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from quark_onnx.core.shown.figures import reasons
from quark_onnx.core.shown.markup import Html, joined, tag

ROWS = 20
"""Rows of a table or chart, at most: a model may have thousands of layers."""


def listed(texts: Sequence[str], most: int = 6) -> Html:
    """A list of the first few, and how many more there are; nothing where there is none."""
    entries = [tag("li", text) for text in texts[:most]]
    more = [tag("li", rest, class_="quiet")] if (rest := more_text(len(texts) - most)) else []
    return tag("ul", *entries, *more, class_="list") if texts else Html()


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], total: int, numbers: Collection[str] = ()
) -> Html:
    """A table of the first rows of `total`; nothing where there are none.

    rows: a cell for each column; the first one names the row.
    numbers: columns that are aligned to the right.
    """
    if not rows:
        return Html()
    kinds = ["n" if name in numbers else "" for name in columns]
    heads = [tag("th", name, scope="col", class_=kind) for name, kind in zip(columns, kinds, strict=True)]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", c, class_=k) for c, k in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    return framed(tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *body), more=total - len(rows))


def framed(*inside: Html, more: int) -> Html:
    """A table that is scrolled where it is too wide, and how many rows it leaves out."""
    rest = [tag("p", text, class_="quiet")] if (text := more_text(more)) else []
    return joined([tag("div", tag("table", *inside, class_="rows"), class_="scroll", tabindex=0), *rest])


def more_text(count: int) -> str:
    """`… and 4,980 more`; empty where there are none."""
    return f"… and {count:,} more" if count > 0 else ""


def reasons_table(caption: str, entries: Mapping[str, str]) -> Html:
    """Nodes by the reason that they have: those with most nodes first."""
    found = reasons(entries)
    rows = [(reason, f"{nodes:,}", first) for reason, nodes, first in found[:ROWS]]
    return table(caption, ("Why", "Nodes", "The first"), rows, len(found), numbers=("Nodes",))
