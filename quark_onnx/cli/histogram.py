"""`quark-onnx histogram`: what calibration saw of a tensor, and which range was chosen for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from quark_onnx.cli.console import out, print_json, progress, say, warn
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ConfigFlags, DataFlags, ShowFlags, output_option
from quark_onnx.cli.plans import Model
from quark_onnx.cli.tables import new_table
from quark_onnx.clock import Clock
from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.observe import observe
from quark_onnx.numerics.quantizer import ends
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import decide
from quark_onnx.plots import SUFFIXES, check_installed, plot_histogram
from quark_onnx.stages.ranges import observed_tensors


@dataclass(frozen=True)
class Plot:
    """A tensor that was plotted: what was seen of it, its range, and the part of the values outside."""

    tensor: str
    file: str
    seen: tuple[float, float]
    range: tuple[float, float]
    outside: float


@spread
def histogram_command(
    *,
    model: Model,
    output: Annotated[Path, output_option(metavar="FOLDER", help="Where to write the plots.")],
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Only tensors of these names, e.g. 'conv*'. Repeatable (default: all).",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--format", metavar="NAME", help="png, svg or pdf.")] = "png",
    how: ConfigFlags,
    data: DataFlags,
    show: ShowFlags,
) -> None:
    """Plot the values of activations, with the range that a method chooses for them.

    Counts are on a logarithmic axis. Needs matplotlib: `pip install 'quark-onnx[plot]'`.

    - `quark-onnx histogram model.onnx --data samples/ -o plots`
    - `quark-onnx histogram model.onnx --data samples/ -o plots --tensor 'relu*' --method Entropy --format svg`
    """
    suffix = f".{kind.lower().lstrip('.')}"
    if suffix not in SUFFIXES:
        raise ConfigError(f"--format {kind!r} is none of {', '.join(name[1:] for name in SUFFIXES)}")
    check_installed()
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; give a folder to write the plots to")
    config = _untuned(data.configure(how))
    with progress(quiet=show.quiet) as tell:
        clock = Clock(tell)
        with clock.stage("prepare"):
            job = open_job(model, config)
        decided = decide(job, job.data(None, data.data), clock)
        chosen = _chosen(decided.plan, tensor)
        with clock.stage("observe"):
            tick = partial(clock.count, "observe", len(decided.feeds))
            statistics = observe(decided.job.prepared, decided.feeds, chosen, tick, counted=decided.counted)
        with clock.stage("plot"):
            plots = _plot(decided.plan, statistics, output, suffix)
    warn(decided.warnings)
    if show.json:
        print_json({"model": str(model), "config": config, "plots": plots})
    elif not show.quiet:
        _print(plots, output)


def _untuned(config: QuantizationConfig) -> QuantizationConfig:
    """Ranges are all that is asked for."""
    without = {
        key: value for key, value in config.extra_options.items() if key not in ("BiasCorrection", "FastFinetune")
    }
    return replace(config, include_fast_ft=False, extra_options=without)


def _chosen(plan: Plan, globs: Sequence[str] | None) -> list[str]:
    """The tensors that were observed and have a scale, in the order of the plan.

    Raises:
        ConfigError: there are none, or none of a name that is asked for.
    """
    tensors = [name for name in observed_tensors(plan) if plan.sites[name].group in plan.qparams]
    if not tensors:
        raise ConfigError("with this configuration no activation has a range; choose another preset")
    for glob in globs or ():
        if not any(fnmatchcase(name, glob) for name in tensors):
            raise ConfigError(f"--tensor: no quantized activation is named {glob!r}{nearest(glob, tuple(tensors))}")
    return [name for name in tensors if not globs or any(fnmatchcase(name, glob) for glob in globs)]


def _plot(plan: Plan, statistics: Mapping[str, Statistics], folder: Path, suffix: str) -> list[Plot]:
    plots, taken = [], set[str]()
    for name, seen in statistics.items():
        site = plan.sites[name]
        lo, hi = (float(end) for end in ends(plan.qparams[site.group], site.format))
        file = _file_name(name, suffix, taken)
        outside = plot_histogram(seen, (lo, hi), f"{name}   {site.format}", folder / file)
        plots.append(Plot(name, file, (seen.lo, seen.hi), (lo, hi), outside))
    return plots


def _file_name(tensor: str, suffix: str, taken: set[str]) -> str:
    """A name that any file system takes and no other tensor has, also where case does not count; added to `taken`."""
    stem = re.sub(r"[^\w.-]+", "_", tensor).strip("._")[:100] or "tensor"
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name + suffix


def _print(plots: Sequence[Plot], folder: Path) -> None:
    table = new_table("Tensor", "Seen", "Range", "Outside", "File", numbers=(3,))
    for plot in plots:
        table.add_row(plot.tensor, _pair(plot.seen), _pair(plot.range), f"{plot.outside:.2%}", plot.file)
    out.print(table)
    say(f"Wrote {len(plots)} plots to {folder}")


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4g} … {pair[1]:.4g}"
