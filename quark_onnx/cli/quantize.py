"""`quark-onnx quantize`: the main job."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from quark_onnx.cli.console import out, print_json, progress, warn
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ConfigFlags, DataFlags, ShowFlags, output_option, show_flag
from quark_onnx.cli.plans import Cache, Labels, Model, resumed_config
from quark_onnx.cli.report_text import print_report
from quark_onnx.cli.tables import layer_table
from quark_onnx.cli.tuning_text import interrupted
from quark_onnx.core.atomic_files import Named, keep_apart, usable_folder
from quark_onnx.core.plan import FILES, Plan
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.report.build import report_of
from quark_onnx.report.pages import check_target, write_report

SavedPlan = Annotated[
    Path | None,
    typer.Option("--save-plan", metavar="FOLDER", help="Also write every decision here.", show_default=False),
]
Resumed = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="FOLDER",
        help="Go on from a saved plan: its settings are the preset, its ranges and tuned layers are kept.",
        show_default=False,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Also measure layers, latency and memory, and write a page to this .html file, with .json beside.",
        show_default=False,
    ),
]

_shared = partial(typer.Option, show_default=False, rich_help_panel="Who works on it")


@dataclass(frozen=True)
class WorkFlags:
    """Who shares the work on samples; the model that comes out is the same."""

    workers: Annotated[int | None, _shared(min=1, metavar="N", help="So many processes of this machine.")] = None
    scheduler: Annotated[
        str | None, _shared(metavar="ADDRESS", help="The workers of this dask.distributed scheduler.")
    ] = None


@spread
def quantize_command(
    *,
    model: Model,
    output: Annotated[Path, output_option(metavar="FILE", help="The quantized model to write.")],
    external_data: Annotated[
        bool, typer.Option("--external-data", help="Write the weights beside the model; always done above 2 GB.")
    ] = False,
    plan: SavedPlan = None,
    resume: Resumed = None,
    report: Page = None,
    how: ConfigFlags,
    data: DataFlags,
    calibration_cache: Cache = None,
    labels: Labels = None,
    layers: Annotated[
        bool,
        show_flag("--layers", help="Also the SQNR of every layer, worst first."),
    ] = False,
    work: WorkFlags,
    show: ShowFlags,
) -> None:
    """Quantize a float model to integers, and say how good the result is.

    The data are some dozens to hundreds of typical inputs, prepared as for inference; only training (…_QAT), which
    wants more of them, has a use for labels. Ctrl-C during fine-tuning keeps what is tuned and writes the model;
    --save-plan and --resume go on from there.

    - `quark-onnx quantize model.onnx -o int8.onnx --data samples/`
    - `quark-onnx quantize model.onnx -o int8.onnx --data samples.npz --preset A8W8 --per-channel --layers`
    - `quark-onnx quantize model.onnx -o int8.onnx --data samples/ --preset S8S8_AAWS_ADAROUND --save-plan plan`
    - `quark-onnx quantize model.onnx -o int4.onnx --data images.npy --preset S4S4_AAWS_QAT --labels labels.npy`
    - `quark-onnx quantize model.onnx -o int8.onnx --data samples/ --report int8.html`
    - `quark-onnx quantize model.onnx -o int8.onnx --data samples/ --preset S8S8_AAWS_ADAROUND --workers 4`
    - `quark-onnx quantize model.onnx -o int8.onnx --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225`
    """
    before = None if resume is None else Plan.load(resume)
    config = data.configure(how) if resume is None else resumed_config(resume, how, data)
    if external_data:
        config = replace(config, use_external_data_format=True)
    inputs = {"the input model": model, "--data": data.data, "--config": how.config, "--labels": labels}
    page = _usable({"--output": output, "--calibration-cache": calibration_cache}, plan, report, inputs)
    with progress(quiet=show.quiet) as tell:
        result = ModelQuantizer(config, tell, **asdict(work)).quantize_model(
            model,
            output,
            calibration_data_path=data.data,
            resume=before,
            calibration_cache=calibration_cache,
            labels=labels,
        )
        if plan is not None:
            result.plan.save(plan, config.to_json())
        sqnr: dict[str, float] = {}
        if layers and result.plan.nodes:
            tell("layers", 0, None)
            sqnr = result.layer_sqnr()
        if page is not None:
            preset = how.begins_with if resume is None else ""
            write_report(told := report_of(result, config, model, model.stem, preset=preset, tell=tell), page)
            warn(told.warnings)
    if stopped := interrupted(result.report.warnings):
        warn([_how_to_resume(plan)])
    if show.json:
        named = {"model": str(model), "output": str(output), "config": config, "interrupted": stopped}
        print_json(named | result.report.to_dict() | ({"layers": sqnr} if layers else {}))
    elif not show.quiet:
        if sqnr:
            out.print(layer_table(sqnr))
        print_report(result.report, output, before, page)


def _usable(files: Named, plan: Path | None, report: Path | None, inputs: Named) -> Path | None:
    """The page of the report, where there is to be one; all outputs are found fit before any work is done."""
    if plan is not None:
        usable_folder(plan, FILES)
    page = None if report is None else check_target(report)
    data = None if page is None else page.with_suffix(".json")
    keep_apart({**files, "--report": page, "the report's JSON": data}, {"--save-plan": plan}, inputs)
    return page


def _how_to_resume(folder: Path | None) -> str:
    if folder is None:
        return (
            "what is tuned is in the model that was written; --save-plan FOLDER would also keep it to go on from there"
        )
    return f"the plan is in {folder}; the same command with --resume {folder} goes on from there"
