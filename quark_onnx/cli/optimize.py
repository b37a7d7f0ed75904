"""`quark-onnx optimize`: a budget in, the smallest or fastest model within it out."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from quark_onnx.cli.console import print_json, warn, warnings_withheld
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ConfigFlags, CustomOps, DataFlags, ShowFlags, output_option
from quark_onnx.cli.plans import Model
from quark_onnx.cli.search_progress import searching
from quark_onnx.cli.search_text import print_search
from quark_onnx.core.atomic_files import behind_links, free_output, keep_apart, new_file, same_file, usable_folder
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.plan import FILES
from quark_onnx.core.settings.budget import Budget
from quark_onnx.durations import seconds
from quark_onnx.optimize import Optimized, optimize
from quark_onnx.optimize.trial_store import TRIALS
from quark_onnx.report.optimize_page import write_search

PAGE, PLAN, CONFIG = "report.html", "plan", "config.json"
"""What the folder holds beside the trials."""

_budget = partial(typer.Option, show_default=False, rich_help_panel="What the model must keep")
_search = partial(typer.Option, show_default=False, rich_help_panel="How to search")


@dataclass(frozen=True)
class BudgetFlags:
    """What the model must keep."""

    max_drop: Annotated[
        str | None,
        _budget("--max-drop", metavar="X|X%", help="The evaluator's score may fall by 0.01, or by 1% of itself."),
    ] = None
    min_sqnr: Annotated[float | None, _budget("--min-sqnr", metavar="DB", help="Every output keeps so many dB.")] = None
    min_agreement: Annotated[
        str | None,
        _budget("--min-agreement", metavar="X|X%", help="So many samples keep their class (arg-max): 0.98 or 98%."),
    ] = None
    max_kl: Annotated[
        float | None, _budget("--max-kl", metavar="NATS", help="Classes diverge by so much at most, as 0.05.")
    ] = None
    evaluate: Annotated[
        str | None,
        _budget(
            "--evaluate",
            metavar="EVALUATOR",
            help="Scores a model, higher is better: module:function, which gets its path, or a command with {model}.",
        ),
    ] = None

    def build(self) -> Budget:
        """The budget.

        Raises:
            ConfigError: a value is none, or nobody can tell a drop.
        """
        if self.max_drop is not None and self.evaluate is None:
            raise ConfigError(
                "--max-drop is about the score of an evaluator; give one with --evaluate, or say what must be kept "
                "with --max-kl, --min-agreement or --min-sqnr, which need none"
            )
        agreement = None if self.min_agreement is None else _part(self.min_agreement)
        return Budget(self.max_drop, self.min_sqnr, agreement, self.max_kl)


def _part(text: str) -> float:
    """0.98 or 98%."""
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value <= 1:
        raise ConfigError(f"--min-agreement {text!r} is no part of the samples; write 0.98 or 98%")
    return value


@dataclass(frozen=True)
class SearchFlags:
    """What is searched for, how long, and where it is kept."""

    objective: Annotated[str, _search("--objective", metavar="WHAT", help="size (default), latency or balanced.")] = (
        "size"
    )
    target: Annotated[
        str, _search("--target", metavar="NAME", help="What runs the model: cpu (default), cpu-avx2, tensorrt, qnn, …")
    ] = "cpu"
    time: Annotated[
        str | None, _search("--time", metavar="TIME", help="Begin no trial after 90s, 10m or 1.5h; the best is kept.")
    ] = None
    folder: Annotated[
        Path | None,
        _search("--folder", metavar="FOLDER", help="Page, plan and trials, to go on from (default: OUT.onnx.search)."),
    ] = None
    custom_ops: CustomOps = None

    @property
    def limit(self) -> float | None:
        """Seconds.

        Raises:
            ConfigError: the text is no time.
        """
        found = None if self.time is None else seconds(self.time)
        if self.time is not None and found is None:
            raise ConfigError(f"--time {self.time!r} is not a time above zero; write seconds, or 90s, 10m or 1.5h")
        return found

    def options(self, data: DataFlags) -> dict[str, Any]:
        """The extra options that flags set.

        Raises:
            ConfigError, DataError: a flag has a bad value, or there are no data.
        """
        data.configure(ConfigFlags(target=self.target, custom_ops=self.custom_ops))
        return data.extra_options({}) | ({"UserCustomOpLibPath": self.custom_ops} if self.custom_ops else {})


@spread
def optimize_command(
    *,
    model: Model,
    output: Annotated[Path, output_option(metavar="FILE", help="The best model to write.")],
    budget: BudgetFlags,
    search: SearchFlags,
    data: DataFlags,
    show: ShowFlags,
) -> None:
    """Find the smallest or fastest model that is good enough.

    Say what it must keep; without that it is the knee, from where on less size costs much accuracy. Some of the samples
    judge and teach nothing. Ctrl-C ends the search and writes the best so far; the same command goes on from there, and
    with another budget it uses what was measured.

    - `quark-onnx optimize model.onnx -o small.onnx --data samples/`
    - `quark-onnx optimize model.onnx -o small.onnx --data samples/ --max-kl 0.05 --time 10m`
    - `quark-onnx optimize model.onnx -o small.onnx --data samples/ --min-sqnr 20 --objective latency`
    - `quark-onnx optimize model.onnx -o small.onnx --data samples/ --max-drop 1% --evaluate my_task:accuracy`
    - `quark-onnx optimize model.onnx -o small.onnx --data samples/ --max-drop 0.01 --evaluate "./score.sh {model}"`
    """
    wanted, options, limit = budget.build(), search.options(data), search.limit
    folder = _usable(model, output, search.folder or output.with_name(f"{output.name}.search"), data.data)
    aside = contextlib.redirect_stdout(sys.stderr) if show.json else contextlib.nullcontext()  # what evaluators print
    with aside, searching(quiet=show.quiet) as line, warnings_withheld():
        found = optimize(
            model,
            None,
            wanted,
            output=output,
            folder=folder,
            objective=search.objective,  # type: ignore[arg-type]  # checked there
            evaluate=budget.evaluate,
            time_limit=limit,
            target=search.target,
            options=options,
            data_path=data.data,
            progress=line.tell,
            told=line.told,
        )
        page = _write(found, folder, model.name)
    warn((*found.warnings, *found.result.report.warnings))
    if found.stopped:
        warn([f"the search was ended by {found.stopped}: {output} is the best so far; the same command goes on"])
    if show.json:
        print_json({"model": str(model), "report": str(page), "plan": str(folder / PLAN)} | found.to_dict())
    elif not show.quiet:
        print_search(found, page)
    raise typer.Exit(0 if found.met else 1)


def _usable(model: Path, output: Path, folder: Path, data: Path | None) -> Path:
    """The folder; all outputs are found fit before any work is done."""
    free_output(model, output)
    if same_file(folder, output):
        raise ConfigError(f"--folder {folder} is --output; give the folder another name")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--folder {folder} is a file; give the name of a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / TRIALS).is_dir():
        raise ConfigError(f"{folder} exists and holds no search; choose another folder with --folder")
    page = folder / PAGE
    made = {"the page": page, "its JSON": page.with_suffix(".json"), "the configuration": folder / CONFIG}
    keep_apart({"--output": output, **made}, {"the plan": folder / PLAN}, {"the input model": model, "--data": data})
    for file in made.values():
        behind_links(file)
    usable_folder(folder / PLAN, FILES)
    return folder


def _write(found: Optimized, folder: Path, name: str) -> Path:
    """Plan, configuration, page and JSON; the page, or where jinja2 is missing, the JSON."""
    config = found.point.config
    found.result.plan.save(folder / PLAN, config)
    with new_file(folder / CONFIG) as path:
        path.write_text(config + "\n", encoding="utf-8")
    return write_search(found, folder / PAGE, name)
