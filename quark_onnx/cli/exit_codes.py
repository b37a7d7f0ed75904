"""What the shell sees of an error: one line, and a code by its kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from quark_onnx.cli.console import encode_anything, message, warnings_shown
from quark_onnx.core.errors import ConfigError, DataError, ModelError, PlanError, QuarkError, ResourceError
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.visible_text import visible
from quark_onnx.evaluators import EvaluatorError, EvaluatorKilled

EXIT_CODES: dict[type[Exception], int] = {
    ConfigError: 2,
    EvaluatorError: 2,
    EvaluatorKilled: 2,
    ModelError: 3,
    DataError: 4,
    PlanError: 5,
    ResourceError: 6,
}
"""What the shell sees of an error; 1 is a difference that `diff` found, a budget that is not met, or a bug."""


_UsageError: type[Any] = typer.BadParameter.__bases__[0]
"""What typer shows itself; where the class lives depends on its release."""


class Commands(TyperGroup):
    """Runs a command; an error the user can mend becomes one line and an exit code."""

    def main(self, *args: Any, **more: Any) -> Any:
        encode_anything()
        return super().main(*args, **more)

    def make_context(self, *args: Any, **more: Any) -> Any:
        with _usage_shown():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        with warnings_shown(), _usage_shown():
            try:
                with told_as_such():
                    return super().invoke(ctx)
            except (QuarkError, EvaluatorKilled) as error:
                message("error", str(error), "bold red")
                raise typer.Exit(next((c for kind, c in EXIT_CODES.items() if isinstance(error, kind)), 1)) from error


@contextlib.contextmanager
def _usage_shown() -> Iterator[None]:
    """What was typed is shown as harmless as anything else."""
    try:
        yield
    except _UsageError as error:
        error.message = visible(error.message, keep="\n")
        raise
