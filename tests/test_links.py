"""Links in README and docs lead somewhere: files and headings that are there, without asking the network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_pages import PAGES, ROOT

LINK = re.compile(r"\]\(\s*<?([^)>\s]+)>?\s*\)")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
CODE = re.compile(r"`[^`\n]*`")
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
(HOME,) = re.findall(r'^Homepage = "(.+)"$', PROJECT, re.M)
(SITE,) = re.findall(r'^Documentation = "(.+)"$', PROJECT, re.M)


def links(page: str) -> list[str]:
    return links_of(PAGES[page])


def links_of(text: str) -> list[str]:
    return LINK.findall(CODE.sub("", FENCE.sub("", text)))


def anchors(page: Path) -> set[str]:
    """Names of the headings, as the hosting site and the documentation's make them."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def target(page: str, link: str) -> tuple[Path, str] | None:
    """The file that a link leads to, and the heading; None where that is not ours, or made when the site is built."""
    place, _, heading = link.partition("#")
    if place.startswith(f"{SITE}/reference/"):
        return None
    if place.startswith(SITE):
        return ROOT / "docs" / f"{place[len(SITE) :].strip('/') or 'start'}.md", heading
    for kind in ("blob", "raw"):
        if place.startswith(f"{HOME}/{kind}/main/"):
            return ROOT / place.removeprefix(f"{HOME}/{kind}/main/"), heading
    if re.match(r"\w+:", place):
        return None
    return (ROOT / page).parent / place if place else ROOT / page, heading


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        found = target(page, link)
        if found is not None:
            file, heading = found
            assert file.exists(), f"{page}: {link}"
            assert not heading or heading in anchors(file), f"{page}: {link}"


def test_readme_is_short_and_stands_alone() -> None:
    """It is shown where there are no files beside it: on the page of a package index."""
    assert (ROOT / "README.md").stat().st_size <= 7000
    assert all(link.startswith("https://") for link in links("README.md"))


def test_readme_has_the_two_commands() -> None:
    text = PAGES["README.md"]
    assert "```sh\npip install '.[demo]' && quark-onnx demo\n```" in text
    assert "```sh\npip install '.[test]' && python -m pytest\n```" in text


def test_what_is_no_link_is_seen() -> None:
    assert target("docs/zoo.md", "#nothing") == (ROOT / "docs/zoo.md", "nothing")
    assert "going-on" in anchors(ROOT / "docs/zoo.md")
    assert "nothing" not in anchors(ROOT / "docs/zoo.md")
    assert len(links("docs/zoo.md")) > 5
    assert links_of("[`a`](b.md) `[c](d.md)`\n```\n[e](f.md)\n```\n![g](h.png)") == ["b.md", "h.png"]
