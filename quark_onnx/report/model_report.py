"""What the report of one model says, as plain values: `ModelReport` and its parts. `plain` makes JSON of it.

Ratios are in dB, times in milliseconds or seconds as their names say, sizes in bytes. None: not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quark_onnx.core.records import (
    Comparison,
    Correction,
    Departure,
    Latency,
    LayerRecord,
    Measured,
    MixRecord,
    ProtectedRegion,
    Slice,
    Training,
    least_alike,
)
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.ledger_rows import Row
from quark_onnx.engine.saturation_certificate import Certificate


@dataclass(frozen=True)
class Score:
    """What an evaluator said of both models; `metric` is its name, more is better."""

    metric: str
    original: float
    quantized: float


@dataclass(frozen=True)
class Sizes:
    """Bytes of both models: `files` with everything in them, or else their weights."""

    original: int
    quantized: int
    files: bool


@dataclass(frozen=True)
class Memory:
    """Bytes that a process grows by when it loads a model and runs it once; `peak`: of the process that quantized."""

    original: int | None
    quantized: int | None
    peak: int | None


@dataclass(frozen=True)
class LayerError:
    """How far one tensor is from the float model's, in dB (more is better; inf: exact).

    tensor       its name in the float model
    node         the layer that makes it; empty for an input of the model
    inputs       the quantized tensors that it is made from
    isolated     its weights and its output are rounded, and it reads exact values
    accumulated  everything in front of it is quantized, too
    rounding     the exact tensor, only rounded to its grid; the rest of the isolated error comes from weights
    weight       the weight of the layer, rounded; the worst if there are several
    output       of the judged output of the model, when this layer alone is quantized
    share        of the noise that all layers, one at a time, make at the judged output
    """

    tensor: str
    node: str
    op_type: str
    inputs: tuple[str, ...]
    isolated: float
    accumulated: float | None = None
    rounding: float | None = None
    weight: float | None = None
    output: float | None = None
    share: float | None = None

    @property
    def name(self) -> str:
        """The layer, or else the tensor."""
        return self.node or self.tensor

    @property
    def by_weight(self) -> float:
        """Part of the isolated error that does not come from rounding the output: from weights, mostly."""
        if self.rounding is None:
            return 1.0
        return max(0.0, 1 - 10 ** ((self.isolated - self.rounding) / 10)) if math.isfinite(self.isolated) else 0.0


@dataclass(frozen=True)
class Layers:
    """The error of every layer, in order of the graph. `judged`: the output, or its `part`, that `output` looks at."""

    layers: tuple[LayerError, ...] = ()
    judged: str = ""
    feeds: int = 0
    part: Slice | None = None

    @property
    def place(self) -> str:
        """What is judged, in words."""
        return self.judged if self.part is None else f"{self.judged}, axis {self.part.axis}, index {self.part.index}"

    def worst(self, count: int) -> list[LayerError]:
        """The layers that harm the judged output most; where that is unknown, those with the largest error."""
        return sorted(self.layers, key=lambda e: (-(e.share or 0.0), e.isolated))[:count]

    def loss(self, error: LayerError) -> float | None:
        """dB by which a tensor is worse than the worst of those it is made from; None where that cannot be told."""
        known = {e.tensor: e.accumulated for e in self.layers}
        before = [v for name in error.inputs if (v := known.get(name)) is not None]
        return None if error.accumulated is None or not before else min(before) - error.accumulated


@dataclass(frozen=True)
class Histogram:
    """Values of a tensor and the range that was chosen for it.

    dtype     of the codes
    seen      smallest and largest value
    range     real values of the lowest and the highest code
    outside   part of the values that is clipped
    clipping  part of the squared error that clipping makes; rounding makes the rest
    gain      dB by which that error would fall with the range where it is least (`MinMSE`)
    start, width, counts  even bins
    """

    tensor: str
    node: str
    dtype: str
    seen: tuple[float, float]
    range: tuple[float, float]
    outside: float
    clipping: float
    gain: float
    start: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """A quantized weight.

    scales  how many it has
    reach   (smallest, median, largest) of the largest absolute values of its output channels; None: no channels
    own     part of its squared rounding error that there would be with a scale per channel, where it has one scale:
            the mean square of the channels' reach to that of the largest
    """

    tensor: str
    node: str
    dtype: str
    scales: int
    reach: tuple[float, float, float] | None
    own: float = 1.0

    @property
    def ratio(self) -> float | None:
        """How many times further the largest channel reaches than the median one."""
        return None if self.reach is None or self.reach[1] <= 0 else self.reach[2] / self.reach[1]


@dataclass(frozen=True)
class Failure:
    """Why there is no quantized model: the stage, what was wrong, and the end of the log."""

    stage: str
    reason: str
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """A sentence with numbers that says what to try.

    rule     the name of the rule that said it
    level    act: something is lost; consider: something may be gained; note: good to know
    subject  the layer or tensor it is about, empty for the model
    """

    rule: str
    level: str
    subject: str
    text: str


@dataclass(frozen=True)
class ModelReport:
    """One model. What was not measured, or cannot be, is None or empty; the page leaves it out.

    name       of the model
    preset     that the configuration began with, or "" for none
    config     fields of the configuration
    default    fields that it would have by its preset; what differs is shown first
    sqnr       dB by float output as a whole, as the runtime runs the model
    outputs    all that was measured of each output, those that are not float included
    written    the same with the arithmetic that the file says
    runtime    which one ran it, with its version; empty: none did, so `outputs` are empty, or those as written
    without_vnni  as x64 without VNNI runs it, on the first samples, where layers may saturate there
    departure  where the model runs otherwise than it is written
    fused      operator type → nodes on integers, of how many
    notes      node that is not quantized → why, by placement
    certificates  integer node → whether it computes the same on every x64 processor
    """

    name: str
    version: str
    preset: str = ""
    target: str = "cpu"
    config: Mapping[str, Any] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    score: Score | None = None
    sqnr: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, Measured] = field(default_factory=dict)
    written: Mapping[str, Measured] = field(default_factory=dict)
    without_vnni: Comparison = field(default_factory=Comparison)
    departure: Departure | None = None
    runtime: str = ""
    sizes: Sizes | None = None
    latency: Latency | None = None
    memory: Memory | None = None
    fused: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ledger: tuple[Row, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    prepared: Mapping[str, int] = field(default_factory=dict)
    sites: Mapping[str, int] = field(default_factory=dict)
    layers: Layers = field(default_factory=Layers)
    histograms: tuple[Histogram, ...] = ()
    weights: tuple[Weight, ...] = ()
    tuned: tuple[LayerRecord, ...] = ()
    untuned: Mapping[str, str] = field(default_factory=dict)
    correction: Correction | None = None
    trained: Training | None = None
    mixed: tuple[MixRecord, ...] = ()
    protected: tuple[ProtectedRegion, ...] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    probes: str = ""
    judged: int = 0
    positions: str = ""
    advice: tuple[Advice, ...] = ()

    @property
    def seen(self) -> bool:
        """Whether the runtime that the target means has run the model: whether its figures are of how it is used."""
        return bool(TARGETS[self.target].runtime and self.runtime)

    @property
    def fine_tuned(self) -> bool:
        """Whether weights were learned; correcting biases is less."""
        return any(record.looked_for for record in self.tuned)

    @property
    def worst_output(self) -> str:
        """The output that is worth the least; empty where none was measured."""
        worth = self._worth
        return min(worth, key=lambda name: worth[name], default="")

    @property
    def worst_sqnr(self) -> float | None:
        """dB that it is worth: of its worst slice, or by its share of equal values; None where none was measured."""
        return self._worth.get(self.worst_output)

    @property
    def classes(self) -> Measured:
        """The output whose classes diverge most, if there are any."""
        return least_alike(self.outputs)

    @property
    def noisiest_output(self) -> str:
        """The output that quantizing harms most: as written, where the model runs otherwise."""
        if self.departure is None or not self.departure.here:
            return self.worst_output
        worth = {name: one.db for name, one in self.written.items() if one.db is not None}
        return min(worth, key=lambda name: worth[name], default="")

    @property
    def noise_sqnr(self) -> float | None:
        """dB that it is worth: what other ranges, types and tuning can raise; None where none was measured."""
        if self.departure is None or not self.departure.here:
            return self.worst_sqnr
        one = self.written.get(self.noisiest_output)
        return None if one is None else one.db

    @property
    def _worth(self) -> dict[str, float]:
        known = {name: one.db for name, one in self.outputs.items() if one.db is not None}
        return {**self.sqnr, **known}
