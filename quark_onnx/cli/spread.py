"""Commands that share groups of flags take each group as one argument, a dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose dataclass arguments typer sees field by field; `command` itself still gets the dataclasses."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    flags: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        members = inspect.signature(groups[parameter.name]).parameters if parameter.name in groups else None
        owner = hints if members is None else get_type_hints(groups[parameter.name], include_extras=True)
        for flag in [parameter] if members is None else members.values():
            flags.append(flag.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=owner[flag.name]))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__annotations__ = {flag.name: flag.annotation for flag in flags}
    run.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    return run
