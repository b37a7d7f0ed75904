"""All commands by name."""

from __future__ import annotations

from typing import Annotated

import typer

from quark_onnx.cli.analyze import analyze_command
from quark_onnx.cli.compare import compare_command
from quark_onnx.cli.demo import demo_command
from quark_onnx.cli.exit_codes import Commands
from quark_onnx.cli.histogram import histogram_command
from quark_onnx.cli.inspect_model import inspect_command
from quark_onnx.cli.optimize import optimize_command
from quark_onnx.cli.plans import apply_command, diff_command, plan_command
from quark_onnx.cli.presets import presets_command
from quark_onnx.cli.quantize import quantize_command
from quark_onnx.cli.zoo import zoo_command
from quark_onnx.core.version import VERSION

EPILOG = """
Exit codes: 0 done, 1 the plans differ, a budget is not met, or not all models of a zoo are good, 2 usage,
configuration or evaluator, 3 the model, 4 the data, 5 a plan, 6 memory, disk or open files have run out, 130 Ctrl-C
(not during fine-tuning or a search: what is done is kept, and the code is that of the result).

Progress, warnings and errors go to stderr, results to stdout.
"""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"quark-onnx {VERSION}")
        raise typer.Exit()


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Quantize float ONNX models to integers, and see how good the result is.

    Begin with `quark-onnx demo`, or with a model of your own:

    - `quark-onnx inspect model.onnx`
    - `quark-onnx quantize model.onnx -o int8.onnx --data samples/`
    - `quark-onnx compare model.onnx int8.onnx --data samples/`
    """


_WORK, _LOOK, _PLANS, _LEARN = "Quantize", "Look", "Plans", "Learn"

app.command("quantize", rich_help_panel=_WORK)(quantize_command)
app.command("optimize", rich_help_panel=_WORK)(optimize_command)
app.command("zoo", rich_help_panel=_WORK)(zoo_command)
app.command("inspect", rich_help_panel=_LOOK)(inspect_command)
app.command("compare", rich_help_panel=_LOOK)(compare_command)
app.command("analyze", rich_help_panel=_LOOK)(analyze_command)
app.command("histogram", rich_help_panel=_LOOK)(histogram_command)
app.command("plan", rich_help_panel=_PLANS)(plan_command)
app.command("apply", rich_help_panel=_PLANS)(apply_command)
app.command("diff", rich_help_panel=_PLANS)(diff_command)
app.command("presets", rich_help_panel=_LEARN)(presets_command)
app.command("demo", rich_help_panel=_LEARN)(demo_command)


def main() -> None:
    """The entry point of the `quark-onnx` command."""
    app()
