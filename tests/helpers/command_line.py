"""The command line, called as the shell would."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from quark_onnx.cli import app


def command(*arguments: object) -> Any:
    """Run a command; bugs are raised, not turned into an exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def done(*arguments: object) -> str:
    """The stdout of a command that succeeds."""
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def fails(code: int, *arguments: object) -> str:
    """The message of a command that fails: a single line, and nothing on stdout."""
    result = command(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    message = str(result.stderr)
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message
