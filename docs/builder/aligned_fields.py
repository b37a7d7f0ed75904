"""Our docstrings list fields in two columns, names and what they mean; here are the two, as values and as Markdown.

target       what runs the model
weight_type  2 to 16 bits, or a float type that
             the model is converted to
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ROW = re.compile(r"( *)(\w+(?:, \w+)*) {2,}(\S.*)")
_TOGETHER = re.compile(r"^( {4})(\w+(?:, \w+)+): (.*(?:\n {5,}.*)*)", re.M)
_CODE = re.compile(r"( {4}|```)")


def fields_of(docstring: str) -> dict[str, str]:
    """What each name means, in the order of the docstring."""
    return {
        name: entry[1] for entry in _parts(docstring, anywhere=True) if len(entry) == 2 for name in entry[0].split(", ")
    }


def as_markdown(docstring: str) -> str:
    """The docstring with its fields as a list; code stays as it is."""
    lines: list[str] = []
    inside = False
    for entry in _parts(docstring, anywhere=False):
        listed = len(entry) == 2
        if listed != inside and lines and lines[-1] and entry[0]:
            lines.append("")
        inside = listed
        lines.append(f"- `{entry[0].replace(', ', '`, `')}`: {entry[1]}" if listed else entry[0])
    return "\n".join(lines)


def one_by_one(docstring: str) -> str:
    """The docstring with arguments, or errors, that share a line (`a, b: text`) each on a line of its own."""

    def alone(found: re.Match[str]) -> str:
        return "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", "))

    return _TOGETHER.sub(alone, docstring)


def _parts(docstring: str, *, anywhere: bool) -> Iterator[tuple[str] | tuple[str, str]]:
    """Lines of text, one by one, and fields, each with all of its lines.

    anywhere: also where lines are set in as code is.
    """
    lines, at = docstring.splitlines(), 0
    while at < len(lines):
        found = None if _CODE.match(lines[at]) and not anywhere else _ROW.fullmatch(lines[at])
        at += 1
        if found is None:
            yield (lines[at - 1],)
            continue
        indent, name, text = found.groups()
        while at < len(lines) and re.match(rf"{indent} {{3,}}\S", lines[at]) and not _is_next(lines[at], indent):
            text += " " + lines[at].strip()
            at += 1
        yield name, text


def _is_next(line: str, indent: str) -> bool:
    found = _ROW.fullmatch(line)
    return found is not None and found[1] == indent
