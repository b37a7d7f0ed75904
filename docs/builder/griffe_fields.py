"""What mkdocstrings asks griffe of our docstrings: two columns become lists."""

from __future__ import annotations

from typing import Any

import griffe
from aligned_fields import as_markdown


class AlignedFields(griffe.Extension):
    """Fields of two columns as lists, in the docstring of whatever has one; checks of fields left out."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_attribute_instance(self, *, attr: Any, **_: Any) -> None:
        """Of a field with a check, the default: `field(32, whole(1))` is 32 for who calls."""
        call = attr.value
        if isinstance(call, griffe.ExprCall) and str(call.function) == "field":
            first = next(iter(call.arguments), None)
            attr.value = attr.value if isinstance(first, griffe.ExprKeyword) else first
