"""What a page of the site would fetch from elsewhere when it is opened: nothing, or the build says so."""

from __future__ import annotations

import re

_LOADED = re.compile(
    r'<(?:script|img|iframe|source|link(?![^>]*rel="canonical"))\s[^>]*?(?:src|href)="((?:https?:)?//[^"]+)"'
)
_ASKING = {
    'class="mermaid"': "the theme loads what draws charts from a network of others",
    'data-md-component="source"': "the theme asks the hosting site for stars",
}


def fetched(html: str) -> list[str]:
    """Addresses that the page loads, and why its script would ask for more."""
    return _LOADED.findall(html) + [why for mark, why in _ASKING.items() if mark in html]
