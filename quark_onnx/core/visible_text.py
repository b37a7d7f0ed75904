"""Text as it may be shown: what steers a terminal, hides, or turns the order of letters round is written as an escape.

Names come out of files that others made. One with `\\x1b[2J` in it clears the screen, one with U+202E reads as another.
"""

from __future__ import annotations

import re
from logging import LogRecord

UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters, C1 among them; marks that are invisible or give a direction; halves of a surrogate pair, as which
Python holds bytes of a file's name that are no UTF-8."""


def visible(text: str, keep: str = "") -> str:
    """The text with what cannot be seen as `\\n`, `\\x1b`, `\\u202e`; characters of `keep` stay as they are."""
    if text.isprintable():
        return text
    return UNSEEN.sub(lambda found: found[0] if found[0] in keep else python_escape(found[0]), text)


def json_visible(text: str) -> str:
    """JSON that says the same, what cannot be seen as `\\u001b`; line ends between its values stay."""
    return UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else json_escape(found[0]), text)


def shown(record: LogRecord) -> bool:
    """A filter of logs: whoever prints them prints one line each, and nothing that acts."""
    record.msg, record.args = visible(record.getMessage()), ()
    return True


def python_escape(text: str) -> str:
    """The characters as Python's `repr` would write them, all of them."""
    return text.encode("unicode_escape").decode("ascii")


def json_escape(text: str) -> str:
    """The characters as JSON without others than ASCII: in halves of a pair beyond U+FFFF."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
