"""Links that lead somewhere on the hosting site's view of the files, turned into those of the documentation's site.

In the files a link is relative to where it stands; or it begins with the address of the repository (README stands
alone) or of the site (pages that are made when it is built).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

BESIDE_DOCS = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Files of the repository that are pages of the site."""

_SOURCES = {uri: path for path, uri in BESIDE_DOCS.items()}
_LINK = re.compile(r"(\]\(\s*)([^)\s]+)(\s*\))")
_CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]*`)", re.M | re.S)


def rewritten(text: str, uri: str, repository: str, site: str) -> str:
    """The Markdown of the page `uri`, its links as the site needs them; code stays as it is."""

    def link(found: re.Match[str]) -> str:
        return found[1] + on_site(found[2], uri, repository, site) + found[3]

    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else _LINK.sub(link, part) for part in parts)


def on_site(link: str, uri: str, repository: str, site: str) -> str:
    """Where a link of the page `uri` leads to on the site."""
    place, mark, heading = link.partition("#")
    if place.startswith(site):
        page = place[len(site) :].strip("/")
        return posixpath.relpath(f"{page}.md" if page else "index.md", posixpath.dirname(uri) or ".") + mark + heading
    path = _path(place, uri, repository)
    if path is None or (uri not in _SOURCES and path.startswith("docs/")):
        return link
    target = _page(path)
    if target is None:
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{repository}/{kind}/main/{path}{mark}{heading}"
    target, own_mark, own_heading = target.partition("#")
    return posixpath.relpath(target, posixpath.dirname(uri) or ".") + (mark or own_mark) + (heading or own_heading)


def _path(place: str, uri: str, repository: str) -> str | None:
    """The file of the repository that a link names; None if it names none."""
    for kind in ("blob", "raw", "tree"):
        if place.startswith(f"{repository}/{kind}/main/"):
            return place.removeprefix(f"{repository}/{kind}/main/")
    if not place or re.match(r"\w+:", place):
        return None
    source = _SOURCES.get(uri, f"docs/{uri}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), place))


def _page(path: str) -> str | None:
    """The page or picture of the site that a file of the repository is; None if it is none."""
    if path in BESIDE_DOCS:
        return BESIDE_DOCS[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("examples/") and path.endswith(".py"):
        heading = path.removeprefix("examples/").lower().replace("/", "").replace(".", "")
        return f"examples.md#{heading}"
    return None
