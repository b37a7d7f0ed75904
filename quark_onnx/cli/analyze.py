"""`quark-onnx analyze`: the error of every layer, alone and accumulated, and what it does to the outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from quark_onnx.cli.compare import check_interface
from quark_onnx.cli.console import out, print_json, progress, say, warn
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ConfigFlags, DataFlags, ShowFlags
from quark_onnx.cli.matching_tensors import match, open_lifted
from quark_onnx.cli.plans import saved_config
from quark_onnx.cli.report_text import protected_text
from quark_onnx.cli.tables import facts, new_table, output_lines
from quark_onnx.clock import Progress
from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.json_writing import json_text
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.compare import quantized_values
from quark_onnx.engine.held_out_probes import PROBES
from quark_onnx.engine.result_wording import decibels_text
from quark_onnx.engine.runtimes.known import runtime_of
from quark_onnx.engine.runtimes.runtime import Missing
from quark_onnx.engine.saturation_certificate import summary
from quark_onnx.graph import Model
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.plots import SUFFIXES, check_installed, plot_layers, plot_ranking
from quark_onnx.report import pages
from quark_onnx.report.build import Measure, Models, report_of, report_of_pair
from quark_onnx.report.model_report import LayerError, ModelReport

PAGE = "report.html"

RANKED = 30
"""Layers in the plot of the ranking and on the terminal, at most."""

TOO_MUCH = 15.0
"""dB by which the layers, one at a time, may predict worse outputs than there are: noise that partly cancels out gives
some. With more, the float model cannot be what the quantized one was made from."""


@spread
def analyze_command(
    *,
    float_model: Annotated[Path, typer.Argument(metavar="FLOAT", help="The float model.", show_default=False)],
    quantized_model: Annotated[
        Path | None,
        typer.Argument(metavar="[QUANT]", help="The quantized model (default: made now).", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write plots and JSON here.", show_default=False),
    ] = None,
    kind: Annotated[str, typer.Option("--format", metavar="NAME", help="Of the plots: png, svg or pdf.")] = "png",
    html: Annotated[bool, typer.Option("--html", help="Also write the model's report there, report.html.")] = False,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FOLDER",
            help="The plan of QUANT (`--save-plan`): needed where channels were evened out between layers.",
            show_default=False,
        ),
    ] = None,
    how: ConfigFlags,
    data: DataFlags,
    show: ShowFlags,
) -> None:
    """Find the layers that quantization harms.

    Each layer is measured alone (its weights and its output rounded, exact inputs), with everything in front of it
    quantized, and by what it alone does to the outputs of the model, by which layers are ranked. QUANT is a QDQ model
    of any tool; without it, the float model is quantized now, as `quark-onnx quantize` would.

    - `quark-onnx analyze model.onnx --preset S8S8_AAWS --data samples/`
    - `quark-onnx analyze model.onnx int8.onnx --data samples/ -o analysis --html`
    - `quark-onnx analyze model.onnx nncf.onnx --data samples/ --target openvino`
    """
    suffix = f".{kind.lower().lstrip('.')}"
    _check(output, suffix, html)
    with progress(quiet=show.quiet) as tell:
        if quantized_model is None:
            if plan is not None:
                raise ConfigError("--plan is that of a quantized model: name the model, too, or leave it out")
            report = _made(float_model, how, data, tell, html)
        else:
            report = _given(float_model, quantized_model, plan, how, data, tell, html)
        files = _write(report, output, suffix, html) if output is not None else []
    warn(report.warnings)
    if show.json:
        print_json({"float": str(float_model), "quantized": str(quantized_model or ""), "report": report})
    elif not show.quiet:
        _print(report, files, output)


def _check(output: Path | None, suffix: str, html: bool) -> None:
    """Refuse what could not be written in the end."""
    if suffix not in SUFFIXES:
        raise ConfigError(f"--format {suffix[1:]!r} is none of {', '.join(name[1:] for name in SUFFIXES)}")
    if output is None:
        if html:
            raise ConfigError("--html writes a page, but no folder is given for it: add -o FOLDER")
        return
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; give a folder to write to")
    check_installed()
    if html:
        pages.check_installed()


def _measure(html: bool) -> Measure:
    return Measure(feeds=PROBES, followed=4, most=None, latency=html, memory=html)


def _made(model: Path, how: ConfigFlags, data: DataFlags, tell: Progress, html: bool) -> ModelReport:
    """The report of a quantization that is made for it."""
    config = data.configure(how)
    result = ModelQuantizer(config, tell).quantize_model(model, calibration_data_path=data.data)
    return report_of(result, config, model, model.stem, preset=how.begins_with, measure=_measure(html), tell=tell)


def _given(
    float_model: Path,
    quantized_model: Path,
    plan: Path | None,
    how: ConfigFlags,
    data: DataFlags,
    tell: Progress,
    html: bool,
) -> ModelReport:
    """The report of two models."""
    if not how.only_of_the_model:
        raise ConfigError("QUANT is quantized already: leave it out to have another one made, or leave the flags out")
    model, quantized = (open_lifted(path, how.custom_ops or ()) for path in (float_model, quantized_model))
    check_interface(model, quantized)
    feeds = data.open(model)
    base, pairs = _base(model, quantized, float_model, plan, how.custom_ops)
    looked = list(islice(feeds, data.samples or PROBES))
    report = report_of_pair(
        Models(model, base, quantized, pairs),
        looked,
        quantized_model.stem,
        files=(float_model, quantized_model),
        target=how.runs_on.name,
        measure=replace(_measure(html), feeds=len(looked)),
        tell=tell,
    )
    return replace(report, warnings=(*report.warnings, *feeds.warnings, *([] if plan else _doubt(report))))


def _base(
    model: Model, quantized: Model, path: Path, plan: Path | None, libraries: list[str] | None
) -> tuple[Model, dict[str, str]]:
    """The float model that quantizers were put into, as far as that can be told, and which tensors are which."""
    if plan is None:
        pairs, base = match(model, quantized)
        return base, pairs
    made = Plan.load(plan)
    job = open_job(path, saved_config(plan, libraries)).rescaled(made.factors, made.shifts, made.smoothed)
    return job.prepared, quantized_values(quantized)


def _doubt(report: ModelReport) -> list[str]:
    """Whether the layers say that the float model is another one than that of the quantized one."""
    outputs = [error.output for error in report.layers.layers if error.output is not None]
    noise = sum(10 ** (-output / 10) for output in outputs)
    part = report.layers.part
    known = report.sqnr.get(report.layers.judged) if part is None else part.sqnr
    if known is None or not outputs or noise <= 0 or known + 10 * math.log10(noise) < TOO_MUCH:
        return []
    return [
        "the layers do not fit, though the outputs do: channels were evened out between layers before quantizing, it "
        "seems; give the plan of the model (--plan), or let it be made here (--preset)"
    ]


def _write(report: ModelReport, folder: Path, suffix: str, html: bool) -> list[str]:
    """Plots, JSON and page; returns their names."""
    with new_file(folder / "analysis.json") as path:
        path.write_text(json_text(report) + "\n", encoding="utf-8")
    written, layers = ["analysis.json"], report.layers.layers
    if layers:
        isolated, accumulated = [error.isolated for error in layers], [error.accumulated for error in layers]
        names, title = [error.name for error in layers], f"{report.name}: error of layers"
        plot_layers(names, isolated, accumulated, title, folder / f"layers{suffix}")
        worst = report.layers.worst(RANKED)
        values, what = _ranking(worst, report.layers.place)
        title = f"{report.name}: sensitivity"
        plot_ranking([error.name for error in worst], values, what, title, folder / f"ranking{suffix}")
        written += [f"layers{suffix}", f"ranking{suffix}"]
    if html:
        pages.write_report(report, folder / PAGE)
        written += [PAGE, Path(PAGE).with_suffix(".json").name]
    return written


def _ranking(worst: Sequence[LayerError], judged: str) -> tuple[list[float], str]:
    """What layers are ranked by, and its name: their part of the noise, or else noise to signal of their own."""
    if any(error.share is not None for error in worst):
        return [100 * (error.share or 0.0) for error in worst], f"% of the noise at {judged}"
    return [100 * 10 ** (-error.isolated / 10) for error in worst], "noise, % of the signal"


def _print(report: ModelReport, files: Sequence[str], folder: Path | None) -> None:
    layers = report.layers
    if layers.layers:
        out.print(_table(report))
        hidden = len(layers.layers) - RANKED
        if hidden > 0:
            out.print(f"… and {hidden} more: see --json")
        if layers.judged:
            say(f"Noise: of all that the layers, one at a time, make at {layers.place}.")
    else:
        out.print("No layer of the quantized model could be matched.")
    if report.protected:
        out.print(facts({"Protected": protected_text(report.protected)}))
    say(run_text(report))
    if report.certificates:
        say(f"Processors: {summary(report.certificates)}.")
    out.print(output_lines(report.outputs, report.written), soft_wrap=True)
    for advice in report.advice:
        say(f"{advice.level}: {advice.text}")
    if folder is not None:
        say(f"Wrote {', '.join(files)} to {folder}")


def run_text(report: ModelReport) -> str:
    """Which runtime ran the model, or that none did."""
    if report.runtime:
        return f"Run in {report.runtime}."
    runtime = runtime_of(TARGETS[report.target])
    if isinstance(runtime, Missing):
        return f"Not run: {runtime.title} is not installed."
    return f"Not run: {runtime.title} cannot run it."


def _table(report: ModelReport) -> Table:
    """The layers that harm most."""
    table = new_table("Layer", "Operator", "Alone", "All in front", "At output", "Noise", numbers=range(2, 6))
    for error in report.layers.worst(RANKED):
        share = "" if error.share is None else f"{error.share:.1%}"
        ratios = ("" if v is None else decibels_text(v) for v in (error.isolated, error.accumulated, error.output))
        table.add_row(error.name, error.op_type or "input", *ratios, share)
    return table
