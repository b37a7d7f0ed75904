"""From a finished quantization, or two models, to the report: what is known is copied, the rest is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from quark_onnx.core.errors import ModelError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.presets import Config, beginning
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.core.version import VERSION
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import quantized_values
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.proof_for_target import certified, proof_of
from quark_onnx.engine.qdq_pieces import pieces
from quark_onnx.engine.result_wording import output_warnings, proof_warnings, size_warning
from quark_onnx.engine.runtimes.known import runtime_of
from quark_onnx.engine.runtimes.runtime import Missing, Runtime
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.report.advice import advise
from quark_onnx.report.footprint import footprint, peak_bytes
from quark_onnx.report.layer_errors import FOLLOWED, layer_errors
from quark_onnx.report.model_report import Failure, Memory, ModelReport, Score, Sizes
from quark_onnx.report.worst_layer_values import histograms, weights
from quark_onnx.result import Result

Source: TypeAlias = str | Path | ModelProto
Tell = Callable[[str, int, int | None], None]

LARGE = 1 << 30
"""Bytes of float weights above which nothing is measured again: it would need several copies of the model."""


SLOWER = 1.05
"""Time of the quantized model as a part of the float one's from which on it is told: less is chance."""


@dataclass(frozen=True)
class Measure:
    """What to measure for a report, beyond what quantizing proved.

    layers    the error of every layer
    feeds     samples that layers are measured on
    followed  samples whose noise is followed from each layer to the outputs
    most      layers that are followed, those with the largest error; None: all
    worst     layers that are shown with a histogram
    latency   time both models
    memory    run both models in processes of their own
    """

    layers: bool = True
    feeds: int = 8
    followed: int = FOLLOWED
    most: int | None = 64
    worst: int = 6
    latency: bool = True
    memory: bool = True


@dataclass(frozen=True, eq=False)
class Models:
    """What is measured.

    original   the user's float model
    base       the float model as quantizers were put into it, e.g. with BatchNormalization folded
    quantized  a QDQ model
    pairs      tensor of `base` → tensor of the quantized model that holds its dequantized value
    """

    original: Model
    base: Model
    quantized: Model
    pairs: Mapping[str, str]


def untold(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody sees."""


def report_of(
    result: Result,
    config: Config | QuantizationConfig,
    source: Source,
    name: str,
    *,
    preset: str = "",
    score: Score | None = None,
    measure: Measure | None = None,
    tell: Tell = untold,
) -> ModelReport:
    """The report of a quantization.

    Args:
        config: that it was made with.
        source: the user's float model.
        name: of the model, as the page calls it.
        preset: that the configuration began with, if any.
        score: what an evaluator said of both models.
        measure: default: all of `Measure`.
        tell: progress, called with ("report", steps done, steps).

    Raises:
        ModelError, ConfigError: the float model cannot be read again, or there is no such preset.
    """
    config = config.global_quant_config if isinstance(config, Config) else config
    known, plan, evidence = result.report, result.plan, result.evidence
    files = None if result.output is None or not isinstance(source, (str, Path)) else (Path(source), result.output)
    report = ModelReport(
        name=name,
        version=VERSION,
        preset=preset,
        target=config.target,
        config=asdict(config),
        default=asdict(beginning(preset, {"target": config.target})[1]) if preset else {},
        score=score,
        sqnr=known.sqnr,
        outputs=known.outputs,
        written=known.written,
        without_vnni=known.without_vnni,
        departure=known.departure,
        runtime=known.runtime,
        sizes=_sizes(files, known.bytes),
        fused=known.fused,
        ledger=known.ledger,
        notes=plan.reasons,
        certificates=known.certificates,
        prepared=known.prepared,
        sites=Counter(site.role for part in plan.parts() for site in part.sites.values()),
        tuned=known.tuned,
        untuned=known.untuned,
        correction=known.correction,
        trained=known.trained,
        mixed=known.mixed,
        protected=known.protected,
        remarks=known.remarks,
        warnings=known.warnings,
        seconds=known.seconds,
        samples=known.samples,
        probes=known.probes,
        judged=known.judged,
        positions=known.positions,
    )
    pairs = quantized_values(evidence.quantized)
    models = Models(open_model(source, config.option("UserCustomOpLibPath")), evidence.model, evidence.quantized, pairs)
    return measured(report, models, evidence.feeds, measure or Measure(), tell, evidence.inside)


def report_of_pair(
    models: Models,
    feeds: Sequence[Feed],
    name: str,
    *,
    target: str = "cpu",
    files: tuple[Path, Path] | None = None,
    measure: Measure | None = None,
    tell: Tell = untold,
) -> ModelReport:
    """The report of a quantized model of any tool.

    Args:
        target: that the quantized model is run for.
        files: of both models.

    Raises:
        ModelError: the runtime of the target fails on the quantized model.
    """
    sizes = {"float": io.weight_bytes(models.original), "quantized": io.weight_bytes(models.quantized)}
    stored, certificates = _sizes(files, sizes), certified(TARGETS[target], models.quantized)
    proof = proof_of(TARGETS[target], models.original, models.quantized, feeds, certificates)
    doubts = (
        *output_warnings(proof.run.outputs, target),
        *proof_warnings(proof, target),
        *size_warning(stored.original, stored.quantized),
    )
    report = ModelReport(
        name,
        VERSION,
        target=target,
        sqnr=proof.run.sqnr,
        outputs=proof.run.outputs,
        written=proof.written.outputs,
        without_vnni=proof.without_vnni,
        departure=proof.departure,
        runtime=proof.runtime,
        sizes=stored,
        samples=len(feeds),
        certificates=certificates,
        warnings=doubts,
    )
    return measured(report, models, feeds, measure or Measure(), tell)


def failed(name: str, stage: str, reason: str, log: Sequence[str] = (), *, preset: str = "") -> ModelReport:
    """The report of a model that there is no quantized one of."""
    report = ModelReport(name, VERSION, preset, failure=Failure(stage, reason, tuple(log)))
    return replace(report, advice=advise(report))


def measured(
    report: ModelReport,
    models: Models,
    feeds: Sequence[Feed],
    what: Measure,
    tell: Tell,
    inside: Sequence[Feed] | None = None,
) -> ModelReport:
    """The report with what is measured now, and the advice that follows from all of it.

    inside: feeds for figures of layers; None: the same.
    """
    found: dict[str, Any] = {}
    if not feeds:
        found["warnings"] = (*report.warnings, "no samples, so nothing was measured: give data")
    elif io.weight_bytes(models.original) > LARGE:
        size = f"{io.weight_bytes(models.original) / 2**30:.1f} GB"
        told = f"the float weights have {size}: layers, latency and memory were not measured (limit {LARGE >> 30} GB)"
        found["warnings"] = (*report.warnings, told)
    else:
        found = _measured(
            models, feeds, feeds if inside is None else inside, what, tell, runtime_of(TARGETS[report.target])
        )
    report = replace(report, **{"warnings": report.warnings} | found)
    report = replace(report, warnings=(*report.warnings, *_slower(report)))
    return replace(report, advice=advise(report))


def _measured(
    models: Models, feeds: Sequence[Feed], inside: Sequence[Feed], what: Measure, tell: Tell, runtime: Runtime | Missing
) -> dict[str, Any]:
    looked = inside[: what.feeds]
    total = len(looked) + 2
    found: dict[str, Any] = {}
    tell("report", 0, total)
    peak = peak_bytes()
    if what.layers:
        parts = pieces(models.base, models.quantized, models.pairs)
        errors = layer_errors(
            models.base,
            models.quantized,
            parts,
            looked,
            followed=what.followed,
            most=what.most,
            tick=lambda done: tell("report", done, total),
        )
        worst = errors.worst(what.worst)
        found["layers"] = errors
        found["histograms"] = histograms(models.base, parts, worst, inside)
        found["weights"] = weights(models.base, parts, [error.tensor for error in worst])
    if what.latency and isinstance(runtime, Runtime):
        with suppress(ModelError):  # it is for another target, and the proof has told what fails here
            found["latency"] = runtime.latency(models.original, models.quantized, feeds)
    tell("report", total - 1, total)
    if what.memory and isinstance(runtime, Runtime):
        grown = [footprint(model, feeds[0], runtime.name) for model in (models.original, models.quantized)]
        found["memory"] = Memory(grown[0], grown[1], peak)
    tell("report", total, total)
    return found


def _slower(report: ModelReport) -> tuple[str, ...]:
    """A warning where the quantized model takes longer in the runtime that it is for, by more than runs differ."""
    found = report.latency
    if found is None or not report.seen:
        return ()
    if found.ratio < SLOWER or found.quantized.low <= found.original.median:
        return ()
    return (
        f"the quantized model is slower than the float one in {found.runtime} on this processor, "
        f"{found.quantized.median:.3g} ms for {found.original.median:.3g} ms: see which nodes are float, and exclude "
        "what does not pay (nodes_to_exclude)",
    )


def _sizes(files: tuple[Path, Path] | None, weights: Mapping[str, int]) -> Sizes:
    """Of the files, with weights that are beside them; of the weights where there are no files."""
    if files is None:
        return Sizes(weights["float"], weights["quantized"], files=False)
    before, after = files
    return Sizes(io.stored_bytes(before, weights["float"]), io.stored_bytes(after, weights["quantized"]), files=True)
