"""What the shell sees of an error: one line, and a code by its kind."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from quark_onnx.cli.console import message, warnings_shown
from quark_onnx.core.errors import ConfigError, DataError, ModelError, PlanError, QuarkError, ResourceError
from quark_onnx.core.resource_faults import told_as_such

EXIT_CODES: dict[type[QuarkError], int] = {ConfigError: 2, ModelError: 3, DataError: 4, PlanError: 5, ResourceError: 6}
"""What the shell sees of an error; 1 is a difference that `diff` found, or a bug."""


class Commands(TyperGroup):
    """Runs a command; an error the user can mend becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with warnings_shown():
            try:
                with told_as_such():
                    return super().invoke(ctx)
            except QuarkError as error:
                message("error", str(error), "bold red")
                raise typer.Exit(next((c for kind, c in EXIT_CODES.items() if isinstance(error, kind)), 1)) from error
