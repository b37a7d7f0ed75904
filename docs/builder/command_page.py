"""The page of the command line: the help of every command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markdown_parts import NONE, code, codes, prose, table
from typer.main import get_command

from quark_onnx.cli.commands import EPILOG, app


def command_page() -> str:
    """Every command, with what it takes."""
    group: Any = get_command(app)
    parts = [f"# Command line\n\n{group.help}\n\n{EPILOG.strip()}"]
    parts += [_command(name, command) for name, command in group.commands.items()]
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> str:
    arguments = list(_arguments(command))
    usage = " ".join(["quark-onnx", name, *(metavar for metavar, _ in arguments), *_required(command), "[OPTIONS]"])
    parts = [f"## {name}\n\n```text\n{usage}\n```\n\n{command.help}"]
    if arguments:
        parts.append(table(("argument", "meaning"), [(code(metavar), prose(text)) for metavar, text in arguments]))
    parts += [f"**{panel}**\n\n{table(('option', 'meaning'), rows)}" for panel, rows in _options(command).items()]
    return "\n\n".join(parts)


def _arguments(command: Any) -> Iterator[tuple[str, str]]:
    for param in command.params:
        if param.param_type_name == "argument":
            name = param.metavar or param.name.upper()
            yield name if param.required else f"[{name.strip('[]')}]", param.help or ""


def _required(command: Any) -> list[str]:
    """Options that have to be given, each as it is given."""
    asked = (param for param in command.params if param.param_type_name == "option" and param.required)
    return [param.opts[-1] + _value(param) for param in asked]


def _value(param: Any) -> str:
    return "" if param.is_flag else f" {param.metavar or param.type.name.upper()}"


def _options(command: Any) -> dict[str, list[tuple[str, str]]]:
    """Flags with their help, by the panel of the help that they are in."""
    found: dict[str, list[tuple[str, str]]] = {}
    for param in command.params:
        if param.param_type_name == "option" and not param.hidden:
            flags = [*param.opts, *param.secondary_opts]
            row = codes([*flags[:-1], flags[-1] + _value(param)]), prose(param.help or NONE)
            found.setdefault(param.rich_help_panel or "Options", []).append(row)
    return found
