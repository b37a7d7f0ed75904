"""`quark-onnx plan`, `apply` and `diff`: decide, apply, compare decisions. And how a plan lies in its folder.

A plan folder holds `plan.json` and `arrays.npz`, as `Plan.save` writes them, and `config.json`: the model has to be
prepared in the same way again before the plan fits it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from quark_onnx.cli.console import out, print_json, progress, say, warn
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ConfigFlags, CustomOps, DataFlags, ShowFlags, output_option, read_config
from quark_onnx.cli.report_text import print_report, protected_text, smoothed_text
from quark_onnx.cli.tables import counted, facts, float_table, remarks_text
from quark_onnx.cli.tuning_text import interrupted, tuning_rows, worst_table
from quark_onnx.clock import Clock
from quark_onnx.core.atomic_files import keep_apart, usable_folder
from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.core.plan import FILES, Plan
from quark_onnx.core.plan_diff import diff
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.core.settings.idle_options import OF_DATA, OF_MODEL
from quark_onnx.decided import Decided
from quark_onnx.engine.calibration_cache import usable
from quark_onnx.engine.ledger_rows import Inside
from quark_onnx.engine.result_wording import training_text
from quark_onnx.job import Job
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import decide, finish
from quark_onnx.training_data import TrainingData

CONFIG = "config.json"
LIBRARIES = "UserCustomOpLibPath"

Cache = Annotated[
    Path | None,
    typer.Option(
        "--calibration-cache",
        metavar="FILE",
        help="Keep what calibration sees in this .npz file, and use it when model and data are the same again, also "
        "for another range method.",
        show_default=False,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="For presets that train (…_QAT): a .npy file with a row for each sample of --data, in their order: class "
        "ids, or numbers that the output is to become.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The float model, an .onnx file.", show_default=False)]


def saved_config(folder: Path, libraries: Sequence[str] | None) -> QuantizationConfig:
    """The configuration that a plan was made with, but for libraries of custom operators: these are the caller's.

    A library is code, and a plan that somebody sends does not say which code runs.

    Raises:
        PlanError: it is missing or malformed, or names libraries, and the caller does not.
    """
    try:
        config = read_config(folder / CONFIG)
    except ConfigError as error:
        raise PlanError(f"{error}; the folder must be one that `quark-onnx plan` or `--save-plan` wrote") from error
    named = config.option(LIBRARIES)
    if named and not libraries:
        raise PlanError(
            f"the plan in {folder} was made with custom operators of {', '.join(named)}, which is code, and runs only "
            "where you name it: --custom-ops FILE"
        )
    return replace(config, extra_options={**config.extra_options, LIBRARIES: libraries}) if libraries else config


CHANGEABLE = ("include_fast_ft", "use_external_data_format", "extra_options")
CHANGEABLE_OPTIONS = ("FastFinetune", "BiasCorrection", *OF_MODEL, *OF_DATA)
"""What may differ from the configuration of a plan when one goes on from it: all that comes after ranges."""


def resumed_config(folder: Path, how: ConfigFlags, data: DataFlags) -> QuantizationConfig:
    """The configuration to go on from a plan with: its own where no preset or file is named, and flags on top.

    Raises:
        PlanError: the plan's configuration is missing or malformed.
        ConfigError: the plan has decided otherwise already.
    """
    made = saved_config(folder, how.custom_ops)
    named = how.preset is not None or how.config is not None
    config = data.configure(how if named else replace(how, config=folder / CONFIG))
    names = [field.name for field in fields(config) if field.name not in CHANGEABLE]
    pairs = {name: (getattr(made, name), getattr(config, name)) for name in names}
    options = [key for key in OPTIONS if key not in CHANGEABLE_OPTIONS]
    for name, (old, new) in (pairs | {key: (made.option(key), config.option(key)) for key in options}).items():
        if old != new:
            raise ConfigError(
                f"the plan in {folder} was made with {name} = {old!r}, which cannot become {new!r} any more; leave out "
                "the flag that asks for it, or make a new plan"
            )
    return config


@spread
def plan_command(
    *,
    model: Model,
    output: Annotated[Path, output_option(metavar="FOLDER", help="Where to write the plan.")],
    how: ConfigFlags,
    data: DataFlags,
    calibration_cache: Cache = None,
    labels: Labels = None,
    show: ShowFlags,
) -> None:
    """Decide every scale and zero point, and write them to a folder instead of a model.

    The folder can be kept, compared with `quark-onnx diff`, edited by hand (plan.json), and turned into a model with
    `quark-onnx apply`, which needs no data.

    - `quark-onnx plan model.onnx -o plan --data samples/`
    - `quark-onnx apply model.onnx plan -o int8.onnx`
    """
    config = data.configure(how)
    taught = TrainingData.of(config, labels, None)
    usable_folder(output, FILES)
    inputs = {"the input model": model, "--data": data.data, "--config": how.config, "--labels": labels}
    keep_apart({"--calibration-cache": calibration_cache}, {"--output": output}, inputs)
    cache = usable(calibration_cache)
    with progress(quiet=show.quiet) as tell:
        clock = Clock(tell)
        with clock.stage("prepare"):
            job = open_job(model, config)
        decided = decide(job, job.data(None, data.data), clock, cache=cache, taught=taught)
        job, plan = decided.job, decided.plan
        plan.save(output, config.to_json())
    warn((*job.doubts, *decided.warnings))
    stopped = interrupted(decided.warnings)
    if stopped:
        command = f"quark-onnx quantize {model} -o OUT.onnx --data PATH --resume {output}"
        warn([f"the plan is in {output}; go on from there with  {command}"])
    if show.json:
        document = {"model": str(model), "plan": str(output), "config": config, "interrupted": stopped}
        document |= {"tuned": decided.records, "untuned": decided.untuned, "correction": decided.correction}
        document |= {"trained": decided.training}
        document |= {"protected": decided.protected, "smoothed": decided.smoothed}
        print_json({**document, **_figures(job, plan)})
    elif not show.quiet:
        _print_plan(decided, clock.seconds.get("tune", 0.0))
        say(f"Wrote {output}: apply it with  quark-onnx apply {model} {output} -o OUT.onnx")


def _figures(job: Job, plan: Plan) -> dict[str, Any]:
    parts = (Inside("", job.prepared, plan), *job.inside(plan))
    nodes = [(node.name or "", node.op_type, part) for part in parts for node in part.model.graph]
    notes = [(name, op_type, part.told(part.plan.notes.get(name, ""))) for name, op_type, part in nodes]
    return {
        "quantized": Counter(op_type for name, op_type, part in nodes if name in part.plan.nodes),
        "float": [note for note in notes if note[-1]],
        "sites": Counter(site.role for part in plan.parts() for site in part.sites.values()),
        "remarks": plan.remarks,
    }


def _print_plan(decided: Decided, seconds: float) -> None:
    plan = decided.plan
    figures = _figures(decided.job, plan)
    if figures["float"]:
        out.print(float_table(figures["float"]))
    if decided.records and decided.correction is None:
        out.print(worst_table(decided.records))
    rows = {
        "Quantized": counted(figures["quantized"]) or "nothing",
        "Quantizers": counted(figures["sites"]),
        **tuning_rows(decided.records, decided.untuned, seconds, decided.correction),
        "Training": "" if decided.training is None else training_text(decided.training),
        "Smoothed": smoothed_text(decided.smoothed),
        "Protected": protected_text(decided.protected),
        "Remarks": remarks_text(plan.remarks),
    }
    out.print(facts(rows))


@spread
def apply_command(
    *,
    model: Model,
    plan: Annotated[Path, typer.Argument(metavar="FOLDER", help="The plan.", show_default=False)],
    output: Annotated[Path, output_option(metavar="FILE", help="The quantized model to write.")],
    custom_ops: CustomOps = None,
    show: ShowFlags,
) -> None:
    """Turn a plan into the quantized model.

    Needs no data. The plan must have been made for this very model: a fingerprint tells.

    - `quark-onnx apply model.onnx plan -o int8.onnx`
    """
    decided, config = Plan.load(plan), saved_config(plan, custom_ops)
    parts = {f"the plan's {file}": plan / file for file in FILES}
    keep_apart({"--output": output}, inputs={"the input model": model, **parts})
    # The plan says which nodes are quantized; names of nodes must not stop another model before its fingerprint does.
    config = replace(config, nodes_to_quantize=(), nodes_to_exclude=(), subgraphs_to_exclude=())
    with progress(quiet=show.quiet) as tell:
        clock = Clock(tell)
        with clock.stage("prepare"):
            job = open_job(model, config).rescaled(decided.factors, decided.shifts, decided.smoothed)
        result = finish(Decided(job, decided), output, clock)
    if show.json:
        print_json({"model": str(model), "plan": str(plan), "output": str(output), **result.report.to_dict()})
    elif not show.quiet:
        print_report(result.report, output)


@spread
def diff_command(
    *,
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Folder of a plan.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Folder of another plan.", show_default=False)],
    show: ShowFlags,
) -> None:
    """Show what two plans decide differently.

    A line for each difference: − gone, + new, ~ changed. Exit code 0 when the plans are equal, 1 when they differ.

    - `quark-onnx diff plan-minmax plan-percentile`
    """
    lines = diff(Plan.load(old), Plan.load(new))
    if show.json:
        print_json({"equal": not lines, "differences": lines})
    elif not show.quiet:
        for line in lines or ["The plans decide the same."]:
            say(line)
    raise typer.Exit(1 if lines else 0)
