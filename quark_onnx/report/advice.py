"""Advice: rules, each a pure function of the report that says nothing, or a sentence with its numbers.

`RULES` is the table; `advise` asks all of them. A rule names what to try by the field of the configuration, in
backticks. Bounds are where measurements on our models (docs/reports.md) begin to show in accuracy.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.records import GOOD, LOST, POOR, ProtectedRegion
from quark_onnx.core.settings.presets import PRESETS
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.core.shown.figures import count
from quark_onnx.engine.protection_wording import region_text
from quark_onnx.engine.result_wording import CAUSES, departure_text, grown, kept_text, way_out
from quark_onnx.engine.saturation_certificate import first_names, not_exact
from quark_onnx.report import layer_advice
from quark_onnx.report.model_report import Advice, ModelReport

Rule = Callable[[ModelReport], Iterator[tuple[str, str, str]]]
"""Yields (level, subject, text)."""

FEW = 32
"""Samples: fewer leave out rare values."""

SLOW = 0.95
"""Time of the quantized model as a part of the float one's from which on it is none less."""

BRIEF = 0.1
"""Milliseconds of a run below which what a runtime does around the kernels decides."""

COSTLY = 0.1
"""Share of the integer products, or of the time, that protection may cost before it is worth a thought."""

SMALL = 100_000
"""Bytes of a model below which the rest of the graph may outweigh the weights."""


def random_data(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Ranges of noise are no ranges."""
    if any("RANDOM data" in warning for warning in r.warnings):
        yield "act", "", "Calibrated on random numbers, so the accuracy figures mean nothing: give real samples."


def few_samples(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Too few samples to know ranges by, and figures that are those of the same samples."""
    if 0 < r.samples < FEW and r.config and r.sites.get("activation"):
        said = f"Calibrated on {count(r.samples, 'sample')} only"
        same = "" if r.probes.startswith("held") else ", which the figures here are of, too"
        yield "consider", "", f"{said}{same}: on others the model may be much worse; 100 or more are usual."


def nothing_quantized(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """The model stays what it was."""
    if r.failure is None and r.ledger and not r.sites and all(row.status == "float" for row in r.ledger):
        reason, times = Counter(row.reason for row in r.ledger).most_common(1)[0]
        if not _converted(r):
            yield "act", "", f"Nothing was quantized: all {len(r.ledger)} nodes are float, {times} of them: {reason}."


def unprotected(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """An output is lost, and nothing may be done about it."""
    options, sqnr = r.config.get("extra_options") or {}, r.noise_sqnr
    works = r.sites.get("activation") and not r.config.get("include_auto_mp") and not TARGETS[r.target].fixed_point
    if options.get("Protect") is False and works and sqnr is not None and sqnr < LOST:
        said = f"Output {r.noisiest_output} {_has(r)}, and protection is off"
        yield "act", r.noisiest_output, f"{said}: switch it on (`Protect`), and what ruins the output stays float."


def protected(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """What the safety of an output costs, and how to do without."""
    for region in sorted(r.protected, key=_cost, reverse=True)[: layer_advice.NAMED]:
        name = (region.tensors if region.action == "own scales" else region.nodes)[0]
        level = "consider" if _cost(region) >= COSTLY else "note"
        text = f"Protection has {region_text(region)}. If that costs too much, forbid it"
        yield level, name, f'{text}: `Protect` ["!{name}"].'


def _cost(region: ProtectedRegion) -> float:
    return max(region.products, region.time)


def poor_output(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """An output that has lost its accuracy, and the next step up."""
    if r.noise_sqnr is not None and r.noise_sqnr < POOR and r.config and not _converted(r):
        name = r.noisiest_output
        said = f"Output {name} {_has(r)}, below the {POOR:.0f} dB where accuracy usually goes"
        yield "act", name, f"{said}: {_step_up(r)}."


def _has(r: ModelReport) -> str:
    """What the worst output keeps, where that is not all of it in dB."""
    here = r.departure is not None and r.departure.here
    one = (r.written if here else r.outputs).get(r.noisiest_output)
    if one is not None and (one.equal is not None or one.worst is not None):
        return kept_text(one)
    return f"has {r.noise_sqnr:.1f} dB"


def _step_up(r: ModelReport) -> str:
    """What to do next where no single layer is to blame: the cheapest that was not done yet."""
    tuned = f"{r.preset}_ADAROUND"
    if r.config.get("use_dynamic_quant"):
        return "exclude the layers that lose most (`nodes_to_exclude`)"
    if not r.fine_tuned:
        return "fine-tune with `include_fast_ft`" + (f" (preset `{tuned}`)" if tuned in PRESETS else "")
    if _is_8(r, "activation"):
        preset = "`include_auto_mp`, preset `S16S16_MIXED_S8S8`"
        return f"fine-tuning was not enough; try 16 bits where they are needed ({preset})"
    if _is_8(r, "weight"):
        return "16 bits for activations were not enough; try them for weights, too (`weight_type`)"
    return "more bits are not to be had; exclude the layers that lose most (`nodes_to_exclude`)"


def _is_8(r: ModelReport, what: str) -> bool:
    """Whether activations, or weights, have fewer bits than they could."""
    return layer_advice.takes_16(r, what) and not str(r.config.get(f"{what}_type")).endswith("16")


def fair_output(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Some accuracy is lost, which may matter or not."""
    fair = r.noise_sqnr is not None and POOR <= r.noise_sqnr < GOOD
    if fair and r.config and not (r.config.get("use_dynamic_quant") or r.fine_tuned or _converted(r)):
        yield (
            "consider",
            "",
            f"The outputs keep {r.noise_sqnr:.1f} dB: if that is too little, fine-tune with `include_fast_ft`.",
        )


def score_lost(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """The evaluator sees a loss of more than a hundredth."""
    if r.score is None or r.score.original - r.score.quantized <= 0.01 * abs(r.score.original):
        return
    lost = r.score.original - r.score.quantized
    text = f"{r.score.metric} falls by {lost:.4g}, from {r.score.original:.4g} to {r.score.quantized:.4g}"
    more = "mixed precision (`include_auto_mp`)" if r.fine_tuned else "fine-tuning (`include_fast_ft`)"
    way = f"try {more}, or exclude the layers that make most of the noise"
    if r.departure is not None and r.departure.here:
        way = "it is that of the model as run, which is not what is written"
    yield "act", "", f"{text}: {way}."


def runs_otherwise(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """What runs is not what is written, and no format or range can mend that."""
    found = r.departure
    if found is not None:
        text = departure_text(found, r.target)
        yield "act", found.layers[0] if found.layers else "", f"{text[0].upper()}{text[1:]}."


def may_saturate(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Layers that x64 without VNNI computes wrongly for some inputs: their weights are to blame, not their bits."""
    layers = not_exact(r.certificates)
    told = r.departure is not None and r.departure.cause == "saturation"
    if layers and not told and TARGETS[r.target].runtime:
        said = f"{count(len(layers), 'layer')} may saturate on x64 without VNNI ({first_names(layers)})"
        yield "act", layers[0], f"{said}: {CAUSES['saturation']}; {way_out('saturation', r.target, r.runtime)}."


def unfused(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Quantized layers that are computed in float all the same."""
    rows = [row for row in r.ledger if row.op_type in LAYERS and row.status == "float" and row.node not in r.notes]
    if rows and r.seen and not _converted(r):
        total = sum(row.op_type in LAYERS for row in r.ledger)
        reason, times = Counter(row.reason for row in rows).most_common(1)[0]
        yield (
            "consider",
            rows[0].node,
            f"{len(rows)} of {total} layers are quantized but computed in float, which is slower than not to quantize "
            f"them, {times} because: {reason}.",
        )


def not_faster(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """The point of it, for many, is missed."""
    if r.latency is None or r.latency.original.median < BRIEF or r.latency.ratio < SLOW or not r.seen:
        return
    floats = sum(row.status == "float" for row in r.ledger)
    why = f"; {floats} of {len(r.ledger)} nodes are float" if floats else ""
    yield (
        "consider",
        "",
        f"The quantized model takes {r.latency.ratio:.2f} × the time of the float one in {r.latency.runtime} on this "
        f"processor, at batch {r.latency.batch}{why}: time it on the one that it is to run on.",
    )


def larger(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Quantizers outweigh what they save."""
    if r.sizes is not None and grown(r.sizes.original, r.sizes.quantized):
        ratio = r.sizes.quantized / max(r.sizes.original, 1)
        said = f"The quantized model is {ratio:.2f} × as large as the float one"
        yield "act", "", f"{said}: exclude what does not pay (`nodes_to_exclude`), or keep the float model."


def not_smaller(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Most of the weights are still float."""
    if r.sizes is None or r.sizes.original < SMALL or not 0.6 < r.sizes.quantized / r.sizes.original <= 1:
        return
    if not r.config:
        return
    if str(r.config.get("weight_type")) not in ("int16", "uint16", "float16", "bfloat16"):
        left = Counter(row.op_type for row in r.ledger if row.node in r.notes)
        which = f": not quantized are {', '.join(f'{n} {op}' for op, n in left.most_common(3))}" if left else ""
        part = r.sizes.quantized / r.sizes.original
        yield "consider", "", f"The model has {part:.0%} of its size, where 8 bits would leave about 28%{which}."


def tuning_refused(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Fine-tuning found little that held-out samples confirm."""
    kept = sum(record.accepted for record in r.tuned)
    if r.config.get("include_fast_ft") and len(r.tuned) >= 4 and kept < len(r.tuned) / 2:
        yield (
            "consider",
            "",
            f"Fine-tuning was kept for {kept} of {len(r.tuned)} layers; held-out samples say that the rest got worse: "
            f"give more samples than {r.samples}.",
        )


def ran_out_of_time(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """A failure that a limit made."""
    if r.failure is not None and re.search(r"time(d )?[- ]?out", r.failure.reason, re.I):
        yield "act", "", f"Stopped during {r.failure.stage}: give it more time, or fewer samples."


def ran_out_of_memory(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """A failure of the process."""
    memory = r"out of memory|memoryerror|bad_alloc|killed|signal 9\b|memory limit"
    if r.failure is not None and re.search(memory, r.failure.reason, re.I):
        yield "act", "", f"Killed during {r.failure.stage}: give it more memory, smaller batches, or fewer samples."


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        ran_out_of_time,
        ran_out_of_memory,
        random_data,
        nothing_quantized,
        score_lost,
        runs_otherwise,
        may_saturate,
        layer_advice.uneven_weights,
        layer_advice.clipped,
        layer_advice.masked,
        layer_advice.coarse,
        layer_advice.harmful_layer,
        unprotected,
        poor_output,
        fair_output,
        layer_advice.rough_weights,
        layer_advice.too_wide,
        few_samples,
        tuning_refused,
        unfused,
        protected,
        not_faster,
        larger,
        not_smaller,
    )
}
"""All rules by name, most important first."""

LEVELS = ("act", "consider", "note")


def advise(report: ModelReport) -> tuple[Advice, ...]:
    """What the rules say, the urgent first; a word that all is well where no rule asks for anything."""
    found = [Advice(name, *told) for name, rule in RULES.items() for told in rule(report)]
    asked = any(advice.level != "note" for advice in found)
    if not asked and report.worst_sqnr is not None and report.worst_sqnr >= GOOD:
        kept = "are exact" if report.worst_sqnr == math.inf else f"keep {report.worst_sqnr:.1f} dB"
        found.append(Advice("fine", "note", "", f"The outputs {kept}: nothing to do."))
    return tuple(sorted(found, key=lambda advice: LEVELS.index(advice.level)))


def _converted(r: ModelReport) -> bool:
    return r.config.get("activation_type") in ("float16", "bfloat16")
