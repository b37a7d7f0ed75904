"""`quark-onnx zoo`: many models, each in its own process, and a row for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from quark_onnx.cli.console import out, print_json
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ShowFlags, output_option
from quark_onnx.cli.tables import facts, first_lines, new_table
from quark_onnx.cli.zoo_progress import shown
from quark_onnx.core.errors import ConfigError
from quark_onnx.engine.result_wording import decibels_text
from quark_onnx.zoo import Outcome, ZooResult, check_zoo, convert_zoo
from quark_onnx.zoo.entry import RANDOM
from quark_onnx.zoo.events import unheard

_default = partial(typer.Option, show_default=False, rich_help_panel="Where the manifest says nothing")
_cluster = partial(typer.Option, show_default=False, rich_help_panel="Where models are converted")


@dataclass(frozen=True)
class Defaults:
    """What entries get that say nothing, by the keys of a manifest."""

    preset: Annotated[
        list[str] | None, _default("--preset", "-p", metavar="NAME", help="Repeatable: presets to try in this order.")
    ] = None
    objective: Annotated[
        str | None, _default(metavar="WHAT", help="Search in place of presets: size, latency or balanced.")
    ] = None
    time: Annotated[str | None, _default(metavar="TIME", help="Of one search: 90, 10m or 2h.")] = None
    data: Annotated[
        str | None, _default("--data", "-d", metavar="PATH", help="Calibration data; {stem} is the model's name.")
    ] = None
    random_data: Annotated[bool, _default("--random-data", help="Use random numbers: for a trial run.")] = False
    samples: Annotated[int | None, _default(min=1, metavar="N", help="Use only the first N samples.")] = None
    target: Annotated[str | None, _default(metavar="NAME", help="What runs the models: cpu, tensorrt, qnn, …")] = None
    min_sqnr: Annotated[float | None, _default(metavar="DB", help="Every output must keep so many dB.")] = None
    timeout: Annotated[str | None, _default(metavar="TIME", help="Of one attempt: 90, 30m or 2h.")] = None

    def said(self) -> dict[str, Any]:
        """Those that were given. A path is relative to where the user is, not to the manifest."""
        if self.random_data and self.data is not None:
            raise ConfigError("random data are asked for, and --data too; leave one of them out")
        data = RANDOM if self.random_data else self.data and str(Path(self.data).expanduser().absolute())
        budget = None if self.min_sqnr is None else {"min_sqnr": self.min_sqnr}
        given: dict[str, Any] = {"preset": self.preset, "data": data, "samples": self.samples, "target": self.target}
        given |= {"timeout": self.timeout, "budget": budget, "objective": self.objective, "time": self.time}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Where:
    """Where models are converted."""

    workers: Annotated[
        int | None, _cluster(min=1, metavar="N", help="Models at a time (default: one for every core).")
    ] = None
    memory: Annotated[
        str | None, _cluster(metavar="SIZE", help="Of each model's process, e.g. 4GB (default: its share).")
    ] = None
    threads: Annotated[int | None, _cluster(min=1, metavar="N", help="Cores of each model (default: its share).")] = (
        None
    )
    scheduler: Annotated[
        str | None, _cluster(metavar="ADDRESS", help="Use the workers of this dask.distributed scheduler.")
    ] = None


@spread
def zoo_command(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|FOLDER", help="A .yaml file, or a folder of models.", show_default=False)
    ],
    output: Annotated[Path, output_option(metavar="FOLDER", help="Where to write, or to go on.")],
    check: Annotated[
        bool, typer.Option("--check", help="Only look for problems, missing models included; nothing is started.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Make no HTML pages.")] = False,
    defaults: Defaults,
    where: Where,
    show: ShowFlags,
) -> None:
    """Convert many models; what an earlier run has done is kept.

    A folder stands for all models in it. A manifest says what is to become of which model: presets, or the objective of
    a search; data, target, evaluator, budget; see docs/zoo.md. A model that crashes, hangs or takes too much memory
    costs itself only. Run the same command again to go on after an interruption, or to try failures again.

    Exit codes: 0 all models are good, 1 some are not, 2 the manifest has problems, 130 Ctrl-C.

    - `quark-onnx zoo models/ -o int8 --data samples/`
    - `quark-onnx zoo zoo.yaml -o int8 --workers 8 --memory 4GB --timeout 30m`
    - `quark-onnx zoo models/ -o int8 --data samples/ --objective size --min-sqnr 25`
    - `quark-onnx zoo zoo.yaml -o int8 --scheduler tcp://10.0.0.1:8786`
    """
    said = defaults.said()
    if check:
        _checked(check_zoo(source, output, defaults=said), show)
        return
    with shown(quiet=show.quiet) as tell:
        result = convert_zoo(
            source, output, defaults=said, report=not no_report, progress=tell or unheard, **asdict(where)
        )
    if show.json:
        counts = {"good": len(result.good), "bad": len(result.bad), "interrupted": result.interrupted}
        print_json({"output": str(output), **counts, "models": [outcome.to_dict() for outcome in result.outcomes]})
    elif not show.quiet:
        _print(result)
    raise typer.Exit(130 if result.interrupted else 1 if result.bad else 0)


def _checked(names: list[str], show: ShowFlags) -> None:
    if show.json:
        print_json({"models": names})
    elif not show.quiet:
        out.print(f"{len(names)} models, no problems.")


def _print(result: ZooResult) -> None:
    if result.good:
        table = new_table("Model", "Preset", "Worst output", "KL", "Score", "Size", "Seconds", numbers=(2, 3, 4, 5, 6))
        for outcome in result.good:
            table.add_row(*_good(outcome))
        out.print(table)
    if result.bad:
        table = new_table("Model", "Status", "Stage", "Why")
        for outcome in result.bad:
            table.add_row(outcome.row.name, outcome.row.status, outcome.row.stage, outcome.row.reason)
        out.print(table)
    states = Counter(outcome.row.status for outcome in result.outcomes)
    kept = sum(outcome.kept for outcome in result.outcomes)
    page = result.output / "index.html"
    rows: dict[str, str | Text] = {
        "Models": ", ".join(f"{count} {state}" for state, count in states.items()),
        "As before": f"{kept} of them" if kept else "",
        "Warnings": _warnings(result.outcomes),
        "Rows": str(result.output / "results.jsonl"),
        "Page": str(page) if page.exists() else "",
        "Go on": "with the same command" if result.bad else "",
    }
    out.print(facts(rows))


def _warnings(outcomes: Sequence[Outcome]) -> Text:
    """What the user should act on, a line each: the first few, and how many more there are."""
    told = [f"{outcome.row.name}: {warning}" for outcome in outcomes for warning in outcome.row.warnings]
    return first_lines(told, "the rows")


def _good(outcome: Outcome) -> tuple[str, ...]:
    row = outcome.row
    sqnr = "" if row.least_sqnr is None else decibels_text(row.least_sqnr)
    kl = "" if row.classes.kl is None else f"{row.classes.kl:.3g}"
    score = "" if row.drop is None else f"{row.scores['quantized']:.4g} ({-row.drop:+.2g})"
    size = f"{row.bytes['quantized'] / row.bytes['float']:.0%}" if row.bytes.get("float") else ""
    return row.name, row.preset, sqnr, kl, score, size, "" if outcome.kept else f"{outcome.cost.seconds:.1f}"
