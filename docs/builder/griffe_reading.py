"""How griffe, which mkdocstrings asks, reads our code: columns, checks of fields, several names at once."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe
from aligned_fields import as_markdown, one_by_one


class OurWays(griffe.Extension):
    """Fields in columns are lists, arguments stand alone, defaults have no checks, and all names are seen."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = one_by_one(as_markdown(obj.docstring.value))

    def on_node(self, *, node: Any, agent: Any, **_: Any) -> None:
        """Several names on the left side are attributes, too: `a, b = 1, 2`."""
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            for name in node.targets[0].elts:
                if isinstance(name, ast.Name):
                    made = griffe.Attribute(name.id, lineno=node.lineno, endlineno=node.end_lineno)
                    agent.current.set_member(name.id, made)

    def on_attribute_instance(self, *, attr: Any, **_: Any) -> None:
        """Of a field with a check, the default: `field(32, whole(1))` is 32 for who calls."""
        if re.search(r"\b_[a-z]", str(attr.value or ""), re.I):  # how it is made of what is not public says nothing
            attr.value = None
        call = attr.value
        if isinstance(call, griffe.ExprCall) and str(call.function) == "field":
            first = next(iter(call.arguments), None)
            attr.value = attr.value if isinstance(first, griffe.ExprKeyword) else first
