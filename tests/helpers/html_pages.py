"""Pages as a strict reader sees them, and names that would do harm if they were no text."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

from quark_onnx.core.visible_text import UNSEEN

HOSTILE = """<script>alert("1")</script>&'x'`y`\x1b[2J\x9b\u202e\udcff"""
VOID = ("meta", "br")


class Page(HTMLParser):
    """Reads strictly: tags are closed in order, ids are given once, and links lead somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        assert text.startswith("<!DOCTYPE html>")
        assert UNSEEN.findall(text.replace("\n", "")) == []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        for link in self.links:
            assert link.startswith(("#", "./")), link
            assert not link.startswith("#") or link[1:] in self.ids, link

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), names
        for name, value in attrs:
            self.attributes.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "action", "data", "poster"):
                self.links.append(value or "")
            elif name in ("aria-labelledby", "aria-describedby"):
                self.links.append(f"#{value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, blanks made one."""
        return re.sub(r"\s+", " ", " ".join(self.words))


def safe(text: str, *, scripts: int = 0) -> Page:
    """The page, after a look at all that could reach the network or run."""
    page = _harmless(text, scripts)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none';")
    return page


def card(html: str) -> Page:
    """What a notebook shows, after the same look. It stands among others: no ids, and rules for itself alone."""
    page = _harmless(f"<!DOCTYPE html>{html}", 0)
    assert page.ids == page.links == []
    selectors = re.findall(r"([^{}]+)\{", html.partition("<style>")[2].partition("</style>")[0])
    assert selectors and all(one.startswith(".quark-onnx") for rule in selectors for one in rule.split(","))
    return page


def _harmless(text: str, scripts: int) -> Page:
    page = Page(text)
    assert page.tags["script"] == scripts
    assert not page.tags.keys() & {"img", "iframe", "object", "embed", "link", "base", "form", "video", "audio", "use"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in text and "@import" not in text and "//" not in text.replace("<!--", "")
    return page
