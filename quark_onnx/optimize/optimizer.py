"""`optimize`: one call from a float model and a budget to the smallest, fastest model within it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from quark_onnx.clock import Progress
from quark_onnx.core.atomic_files import free_output
from quark_onnx.core.errors import ConfigError, ModelError, nearest
from quark_onnx.core.records import least_alike
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.version import VERSION
from quark_onnx.engine.budget_excess import excess
from quark_onnx.engine.calibration_cache import data_hash
from quark_onnx.engine.compare import compare_each
from quark_onnx.engine.kept_feeds import telling
from quark_onnx.engine.output_judge import OutputJudge, run_of
from quark_onnx.engine.runtimes.known import own_runtime
from quark_onnx.evaluators import Evaluator, Score, identity, refusal, score
from quark_onnx.graph import ModelProto, io
from quark_onnx.job import Job
from quark_onnx.opened_job import open_job
from quark_onnx.optimize.judging_samples import JudgingSamples, judging_samples
from quark_onnx.optimize.layer_damage import measure_of
from quark_onnx.optimize.layer_table import table_rows, work_of_layers
from quark_onnx.optimize.outcome_wording import advice, blame, departing, doubts, reason, slower
from quark_onnx.optimize.records import LayerOption, LayerRow, Objective, Optimized, Point, Trial
from quark_onnx.optimize.rungs import bottom, rungs
from quark_onnx.optimize.search import Search
from quark_onnx.optimize.trial_store import TrialStore
from quark_onnx.optimize.trials import Stopped, Task, Trials, milliseconds, written
from quark_onnx.progress import followed
from quark_onnx.progress.stage_steps import TRIAL
from quark_onnx.result import Result

CTRL_C = "Ctrl-C"
Told = Callable[[Trial], None]

RANDOM = ("UseRandomData", "RandomDataReaderInputShape", "RandomDataReaderInputDataRange")
"""Options that say where the samples come from: once they are there, trials are given them."""


@told_as_such()
def optimize(
    model: str | Path | ModelProto,
    data: object = None,
    budget: Budget | None = None,
    *,
    output: str | Path | None = None,
    folder: str | Path | None = None,
    objective: Objective = "size",
    evaluate: Evaluator | None = None,
    home: str | Path | None = None,
    time_limit: float | None = None,
    target: str = "cpu",
    options: Mapping[str, Any] | None = None,
    data_path: str | Path | None = None,
    progress: Progress | None = None,
    told: Told = lambda trial: None,
) -> Optimized:
    """Find the smallest, fastest model that loses no more than the budget allows; without a budget, the knee.

    Args:
        model: path or `onnx.ModelProto` of a float model; never modified.
        data: samples without labels, as for `ModelQuantizer.quantize_model`; some of them judge.
        budget: what the model must keep.
        output: path of the model to write; it holds the best so far at any time.
        folder: for what was measured: a search goes on from there; None: nothing is kept.
        objective: what is made small: "size", "latency", or both ("balanced").
        evaluate: the user's judge, for `max_drop`: a function of a model's path, `module:function` or a command with
            {model}. It gives a number, or one for each sample.
        home: folder where the evaluator's module is looked for; None: the current one.
        time_limit: seconds after which no trial begins, and one under way ends, as soon as there is a model.
        target: what runs the model.
        options: extra options of every configuration.
        data_path: a folder of samples instead of `data`.
        progress: as in `ModelQuantizer`; a trial begins with the stage `trial NUMBER: NAME`.
        told: told when a trial begins, and when the best changes.

    Returns:
        The chosen model, all points that were tried, and the table of layers.

    Raises:
        ConfigError, ModelError, DataError: an argument, the model or the data cannot be used, or no trial gave a model.
        EvaluatorError: the evaluator cannot score the float model.
    """
    start, wanted = time.monotonic(), budget or Budget()
    _check(objective, wanted, evaluate, time_limit, Path(home or "."))
    path = free_output(model, output)
    config = bottom(target, options or {})
    with followed(progress) as tell:
        job, samples = _opened(model, config, data, data_path, tell)
        judge = OutputJudge(job.plain, samples.judges, samples.counted)
        perfect = judge.measured(run_of(job.plain)).outputs
        if faults := excess(replace(wanted, max_drop=None), perfect):
            raise ConfigError(f"the float model itself is not within the budget: {'; '.join(faults)}")
        task = Task(
            model,
            samples.taught,
            judge,
            measure_of(perfect, wanted),
            wanted,
            io.stored_bytes(model, io.weight_bytes(job.model)),
            evaluate,
            Path(home or "."),
            None if evaluate is None else _scored(job, evaluate, Path(home or "."), tell),
            milliseconds(job.plain, samples.judges, config.row),
        )
        limit = None if time_limit is None else start + time_limit
        config = replace(config, extra_options={k: v for k, v in config.extra_options.items() if k not in RANDOM})
        around = _Run(job, samples, task, path, limit, tell, told)
        search = around.begun(folder, config, objective)
        stopped = ""
        try:
            search.run(config, rungs(config, objective))
        except (Stopped, KeyboardInterrupt) as error:
            stopped = str(error) or CTRL_C
            if search.best is None:
                short = f"{stopped} ended the search before a trial gave a model; allow more time"
                raise (KeyboardInterrupt if stopped == CTRL_C else ConfigError(short)) from error
        search.trials.deadline = None  # what is written, and told of it, takes its time
        try:
            found = _outcome(search, samples, job, stopped, path, time.monotonic() - start)
        except Stopped as error:  # Ctrl-C while the best model is made again
            raise KeyboardInterrupt from error
        return replace(found, clocked=around.clocked and search.table is not None)


def _check(objective: str, budget: Budget, evaluate: Evaluator | None, limit: float | None, home: Path) -> None:
    known = get_args(Objective)
    if objective not in known:
        raise ConfigError(f"objective: unknown value {objective!r}{nearest(str(objective), known)}")
    if budget.max_drop is not None and evaluate is None:
        raise ConfigError(
            "max_drop is about the score of an evaluator, and there is none: give one (evaluate), or say max_kl, "
            "min_agreement or min_sqnr, which need none"
        )
    if limit is not None and not limit > 0:
        raise ConfigError(f"the time limit must be above 0 seconds, not {limit!r}")
    if isinstance(evaluate, str) and (fault := refusal(evaluate, home)):
        raise ConfigError(fault)


def _opened(
    model: str | Path | ModelProto,
    config: QuantizationConfig,
    data: object,
    path: str | Path | None,
    progress: Progress,
) -> tuple[Job, JudgingSamples]:
    progress("prepare", 0, None)
    job = open_job(model, config)
    found = job.data(data, path)
    if found is None:
        why = "nothing in the model can be quantized" if job.idle else "no samples are given"
        raise ConfigError(
            f"{why}: there is nothing to search for; `quark-onnx inspect` tells what stays float, and why"
        )
    progress("read", 0, None)
    samples = judging_samples(job, found)
    return job.seen(samples.inside[telling(samples.inside)[0]]), samples


def _scored(job: Job, evaluate: Evaluator, home: Path, progress: Progress) -> Score:
    """The float model's score."""
    progress("evaluate", 0, None)
    if not isinstance(job.source, ModelProto):
        return score(evaluate, home, Path(job.source))
    with tempfile.TemporaryDirectory(prefix="quark_onnx-") as folder:
        path = Path(folder) / "float.onnx"
        io.save(job.model, path, source=job.model)
        return score(evaluate, home, path)


@dataclass
class _Run:
    """What a search needs around it: where the best goes, who is told."""

    job: Job
    samples: JudgingSamples
    task: Task
    output: Path | None
    deadline: float | None
    progress: Progress
    told: Told
    best: Point | None = field(default=None)
    clocked: bool = False

    def begun(self, folder: str | Path | None, config: QuantizationConfig, objective: Objective) -> Search:
        """A search at its beginning."""
        feed = self.samples.inside[telling(self.samples.inside)[0]]
        work = work_of_layers(self.job.prepared, self.job.sites, feed)
        store = TrialStore(None if folder is None else Path(folder), self._base())
        self.clocked = objective == "latency" and own_runtime(config.row) is not None
        trials = Trials(self.task, store, self.progress, self.deadline, self._begin, work)

        def table_of(plain: QuantizationConfig) -> Sequence[LayerRow]:
            text = f"{plain.to_json()} {self.task.measure} {self.clocked}"
            if (stored := store.get("table", text)) is not None:
                return [_row(entry) for entry in stored["rows"]]
            rows = table_rows(
                trials.result(plain),
                plain.row,
                self.samples.inside,
                work,
                self.task.measure,
                self.clocked,
                self.samples.counted,
                partial(trials.tell, "layers"),
            )
            store.put("table", text, {"rows": [asdict(row) for row in rows]})
            return rows

        self.trials = trials
        return Search(trials, objective, table_of, self._better)

    def _base(self) -> str:
        """What all measurements depend on."""
        evaluate = self.task.evaluate
        judged = "" if evaluate is None else identity(evaluate, self.task.home)
        feeds = (data_hash(self.samples.taught), data_hash(self.samples.judges))
        return "\n".join([VERSION, io.fingerprint(self.job.model), *feeds, judged])

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def _begin(self, number: int, name: str) -> None:
        self.progress(f"{TRIAL} {number}: {name}", 0, None)
        self.told(Trial(number, name, self.best, self._left()))

    def _better(self, point: Point) -> None:
        """The best so far is written at once: whatever happens then, it is there."""
        self.best = point
        held = self.trials.kept.get(point.config)
        if self.output is not None and held is not None:
            written(held, self.output, self.job.model)
        self.told(Trial(point.number, point.name, point, self._left()))


def _row(entry: Mapping[str, Any]) -> LayerRow:
    options = tuple(LayerOption(**{**one, "damage": float(one["damage"])}) for one in entry["options"])
    names = {key: tuple(entry[key]) for key in ("nodes", "followers")}
    return LayerRow(**{**entry, **names, "options": options})


def _kl_by_sample(job: Job, samples: JudgingSamples, result: Result) -> list[float]:
    """Of each feed that judges, where the outputs hold classes."""
    _, each = compare_each(job.plain, result.evidence.quantized, samples.judges, samples.counted)
    return [kl for one in each if (kl := least_alike(one.outputs).kl) is not None]


def _outcome(
    search: Search, samples: JudgingSamples, job: Job, stopped: str, path: Path | None, seconds: float
) -> Optimized:
    best, trials = search.best, search.trials
    if best is None:
        raise ModelError(f"no trial gave a model; the first one: {trials.points[0].error}")
    result = trials.result(best.configuration)
    if path is not None:
        written(result, path, job.model)
    task, rows = trials.task, () if search.table is None else search.table.with_chosen(best.choices)
    met, timed = search.knee or best.good, slower(best, task, result, best.configuration.row)
    doubted = (*departing(best, task, result), *doubts(best, task, _kl_by_sample(job, samples, result)))
    found = Optimized(
        search.objective,
        {name: value for name, value in asdict(task.budget).items() if value is not None},
        met,
        reason(search, best, met=met),
        tuple(trials.points),
        best.number,
        task.measure,
        task.float_size,
        replace(result, output=path),
        rows=rows,
        float_score=None if task.before is None else task.before.value,
        samples=samples.counts,
        stopped=stopped,
        warnings=(*job.doubts, *samples.warnings, *timed, *doubted),
        timed=timed,
        seconds=round(seconds, 2),
        output=path,
    )
    return replace(found, blame=() if met else blame(found), advice=advice(found))
