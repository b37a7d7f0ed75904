"""Commands that share groups of flags take each group as one argument, a dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose dataclass arguments typer sees field by field; `command` itself still gets the dataclasses.

    All arguments of `command` must be keyword-only: their order is that of the help, wherever defaults are.
    """
    groups: dict[str, Any] = {name: hint for name, hint in get_type_hints(command).items() if is_dataclass(hint)}
    flags: list[inspect.Parameter] = []
    for flag in _flags(command):
        flags += _flags(groups[flag.name]) if flag.name in groups else [flag]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__annotations__ = {flag.name: flag.annotation for flag in flags}
    run.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    return run


def _flags(source: Any) -> list[inspect.Parameter]:
    """The parameters of a function or dataclass, keyword-only, their annotations no longer strings."""
    only = inspect.Parameter.KEYWORD_ONLY
    # Not get_type_hints: that of Python 3.10 hides what typer looks for in an Optional, where the default is None.
    return [flag.replace(kind=only) for flag in inspect.signature(source, eval_str=True).parameters.values()]
