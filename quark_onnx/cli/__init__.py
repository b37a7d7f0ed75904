"""The command line, `quark-onnx COMMAND`: one file per group of commands. Only this package imports typer and rich."""

from quark_onnx.cli.commands import app, main
from quark_onnx.cli.exit_codes import EXIT_CODES

__all__ = ["EXIT_CODES", "app", "main"]
