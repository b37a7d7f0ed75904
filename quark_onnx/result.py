"""What a quantization returns: the plan, the model, and the evidence that it works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import (
    Comparison,
    Correction,
    Departure,
    LayerRecord,
    Measured,
    MixRecord,
    ProtectedRegion,
    SmoothRecord,
    Training,
)
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.core.shown.card import Card, Shown, Tile
from quark_onnx.core.shown.figures import count, seconds
from quark_onnx.core.shown.markup import tag
from quark_onnx.core.shown.tables import listed
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import quantized_values, tensor_sqnr
from quark_onnx.engine.layer_sqnr import LayerSqnr
from quark_onnx.engine.ledger_rows import Row, certificates_of
from quark_onnx.engine.protection_wording import region_text
from quark_onnx.engine.result_card import (
    accuracy_tiles,
    float_table,
    integers_tile,
    nodes_strip,
    operators_chart,
    size_tile,
    training_chart,
    tuned_chart,
    verdict,
)
from quark_onnx.engine.saturation_certificate import Certificate, summary
from quark_onnx.graph import Model, ModelProto

Probed = Literal["held out", "held out of this run", "calibration", ""]


@dataclass(frozen=True, eq=False, repr=False)
class Report(Shown):
    """Figures of one quantization.

    sqnr       dB by float output as a whole, float model against the quantized one as the runtime runs it
    outputs    all that was measured of each output, those that are not float included
    written    the same with the arithmetic that the file says
    runtime    which one ran it, with its version; empty: none did, so `outputs` are empty, or those as written
    without_vnni  as x64 without VNNI runs it, on the first samples, where layers may saturate there
    departure  where the model runs otherwise than it is written
    ledger     a row per node: integer, absorbed or float, and why
    remarks    by tensor: what was unusual, e.g. a scale that was raised
    warnings   what the user should act on, e.g. calibration with random data
    prepared   how often each rewrite of the float model was applied
    seconds    by stage
    bytes      of the weights of the float and of the quantized model
    stored     of both models as they are stored, graph and weights
    samples    calibration feeds used
    probes     what the proofs used: samples that were held out, of which nothing was learned (known for this run alone,
               where it went on from a plan); the first ones of calibration, where there are too few; or none
    judged     feeds that the proofs used
    positions  how many of the samples' positions count, and what became of padding; empty: there is none
    tuned      a record per layer that fine-tuning or bias correction looked at
    untuned    layer that it could not work on → the reason
    correction  whether bias correction was kept, where that was judged, and what the worst output is worth either way
    trained    how the model was trained as a whole, where it was
    mixed      a record per layer that mixed precision could move, least harmful first
    protected  a record per region that protection left float
    smoothed   a record per activation that SmoothQuant looked at
    target     what the model was quantized for; without a runtime of it here, onnxruntime's CPU provider has the ledger
    """

    sqnr: Mapping[str, float]
    outputs: Mapping[str, Measured]
    ledger: tuple[Row, ...]
    remarks: Mapping[str, str]
    warnings: tuple[str, ...]
    prepared: Mapping[str, int]
    seconds: Mapping[str, float]
    bytes: Mapping[str, int]
    stored: Mapping[str, int]
    samples: int
    written: Mapping[str, Measured] = field(default_factory=dict)
    without_vnni: Comparison = field(default_factory=Comparison)
    departure: Departure | None = None
    runtime: str = ""
    tuned: tuple[LayerRecord, ...] = ()
    untuned: Mapping[str, str] = field(default_factory=dict)
    correction: Correction | None = None
    trained: Training | None = None
    mixed: tuple[MixRecord, ...] = ()
    protected: tuple[ProtectedRegion, ...] = ()
    smoothed: tuple[SmoothRecord, ...] = ()
    target: str = "cpu"
    probes: Probed = ""
    judged: int = 0
    positions: str = ""

    @property
    def fused(self) -> dict[str, tuple[int, int]]:
        """By operator type that the target knows: how many nodes run on integers, of how many."""
        known = TARGETS[self.target].ops
        total = Counter(row.op_type for row in self.ledger if row.op_type in known)
        done = Counter(row.op_type for row in self.ledger if row.status != "float")
        return {op_type: (done[op_type], count) for op_type, count in total.items()}

    @property
    def float_nodes(self) -> dict[str, str]:
        """Node that stays float → the reason."""
        return {row.node: row.reason for row in self.ledger if row.status == "float"}

    @property
    def certificates(self) -> dict[str, Certificate]:
        """Integer node → whether it computes the same on every x64 processor."""
        return certificates_of(self.ledger)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "fused": self.fused}

    def _card(self) -> Card:
        word, sentence, level = verdict(self.outputs, self.warnings, self.written)
        judged = f"judged on {self.judged} {'others' if self.probes.startswith('held') else 'of them'}"
        tiles = [*accuracy_tiles(self.outputs, self.written), size_tile(self.stored)]
        unseen = bool(self.written and not self.outputs)  # it was not run
        tiles.append(Tile("On integers", "not known") if unseen else integers_tile(self.ledger))
        tiles.append(Tile("Calibrated on", count(self.samples, "sample"), judged if self.judged else ""))
        tiles.append(Tile("Time", seconds(sum(self.seconds.values()))))
        sections = (
            listed(self.warnings),
            nodes_strip(self.ledger),
            tag("p", summary(self.certificates), class_="quiet"),
            listed([region_text(region) for region in self.protected]),
            operators_chart(self.ledger),
            float_table(self.ledger),
            tuned_chart(self.tuned),
            training_chart(self.trained),
        )
        return Card("Report", word, sentence, tiles, sections, level)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What can be measured again: the models and samples that the proofs used.

    model      the float model as quantizers were put into it: prepared and equalized, in float32
    quantized  what became of it
    feeds      the probes of the report
    inside     the same without padding, where they can be cut: for figures of tensors inside
    """

    model: Model
    quantized: Model
    feeds: tuple[Feed, ...]
    inside: tuple[Feed, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Result(Shown):
    """The outcome of `ModelQuantizer.quantize_model`.

    plan      every decision, ready to save, diff and apply again
    model     the quantized model (an `onnx.ModelProto`; with external weights when it is above 2 GB)
    report    the figures
    output    path of the written file, None when none was asked for
    evidence  both models and some samples, for reports and analysis
    """

    plan: Plan
    model: ModelProto
    report: Report
    output: Path | None
    evidence: Evidence = field(repr=False)

    def layer_sqnr(self) -> LayerSqnr:
        """SQNR in dB of every quantized activation, in order of the graph, on the probes; notebooks show a chart.

        Both models run from the input on, so the noise of earlier layers is included.
        """
        e = self.evidence
        return LayerSqnr(tensor_sqnr(e.model, e.quantized, e.inside, quantized_values(e.quantized), optimized=False))

    def _card(self) -> Card:
        card = self.report._card()
        calls = (tag("code", f"result.{name}") for name in ("layer_sqnr()", "plan"))
        more = tag("p", "The error of each layer: ", next(calls), "; every tensor: ", next(calls), class_="quiet")
        where = "not written to a file" if self.output is None else str(self.output)
        return replace(card, title=f"Result, {where}", sections=(*card.sections, more))
