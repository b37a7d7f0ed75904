"""What a stage did to each layer, and what was measured of each output, for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from quark_onnx.core.plan import Plan


@dataclass(frozen=True)
class LayerRecord:
    """One layer of fine-tuning or bias correction.

    loss_before, loss_after   mean squared error of the layer's output behind its activation, summed over channels by
                              their importance, on the samples that taught; without tuning, and with what was chosen
    held_before, held_after   the same on the held-out samples, which decide
    choice       raw: left as it was; untuned: the bias alone; nearest: scale and bias; tuned: all
    accepted     whether anything was changed
    iterations   of the optimizer
    """

    node: str
    op_type: str
    choice: str
    accepted: bool
    iterations: int
    seconds: float
    loss_before: float
    loss_after: float
    held_before: float
    held_after: float

    @property
    def looked_for(self) -> bool:
        """Whether a rounding better than the nearest was looked for, by iterations or without, as far as it tells."""
        return self.iterations > 0 or self.choice == "tuned"


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was done: the plan, a record per layer, and the layers left out with the reason.

    interrupted  whether Ctrl-C ended it
    late         which layer did not fit into the time that was left, which ended it; empty: none
    done         of so many layers, in either case
    """

    plan: Plan
    records: tuple[LayerRecord, ...]
    reasons: Mapping[str, str]
    interrupted: bool = False
    late: str = ""
    done: int = 0
    layers: int = 0


@dataclass(frozen=True)
class TrainedPoint:
    """What was seen when so many steps of training were done.

    loss    mean over the samples since the last look; None at the start
    held    loss on the held-out samples
    metric  share of these that the labels' classes are found of; None: there are no such labels
    """

    step: int
    loss: float | None
    held: float
    metric: float | None = None


@dataclass(frozen=True)
class Training:
    """How the quantized model was trained.

    curve    from the start on
    best     the point that was kept: that with the least loss on the held-out samples; the first: nothing changed
    steps    that were made, of `planned`
    samples  that were trained on, and `judges` that were held out
    ended    why it ended before its time; empty: it did not
    """

    curve: tuple[TrainedPoint, ...]
    best: TrainedPoint
    steps: int
    planned: int
    samples: int
    judges: int
    ended: str = ""

    @property
    def accepted(self) -> bool:
        """Whether anything was changed."""
        return self.best.step > 0


@dataclass(frozen=True)
class Correction:
    """Bias correction that was judged by what the worst output is worth, on samples that it did not learn from.

    kept       whether it gains more than chance would; else biases are as they were
    without    dB of the worst output without it; None where nothing could be measured
    corrected  the same with it; None where nothing was done, as no accuracy is lost without
    samples    that judged; 0: there are too few
    """

    kept: bool
    without: float | None = None
    corrected: float | None = None
    samples: int = 0


@dataclass(frozen=True)
class SmoothRecord:
    """An activation that products with constant weights read, and what SmoothQuant made of it.

    products  the nodes that read it
    into      what takes the division in
    alpha     how much of its range moved into the weights; 0: it is left alone
    before    dB of the products with integers, without it; None: not measured
    after     the same with it
    reason    why it is left alone
    """

    tensor: str
    products: tuple[str, ...]
    into: str = ""
    alpha: float = 0.0
    before: float | None = None
    after: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class MixRecord:
    """One layer of automatic mixed precision.

    score  of the float model with what moves with this layer alone in the narrower types, as it is written, by the
           configured metric; whichever way layers move
    moved  whether the layer has the types of TargetLayerConfig
    """

    node: str
    op_type: str
    score: float
    moved: bool


PROTECTED = "protected: "
"""What the reason of a plan begins with where protection has left a node float, or a weight its own scales."""


UNFIT = "integers cannot do it: "
"""What the reason of a plan begins with where a node stays float because its integer kernel would fail."""


@dataclass(frozen=True)
class ProtectedRegion:
    """What protection changed in one place.

    action    float: neighbouring nodes compute in float; own scales: weights have a scale per channel
    tensors   whose quantizers were taken out, or that have scales of their own
    nodes     whose they are, in order of the graph
    reason    what was found
    output    that suffered most
    before    dB of the worst output with this region quantized and all others protected; None: not measured
    after     dB of the worst output with all regions protected; None: not measured
    products  share of the integer multiply-adds that it costs
    time      share of the estimated running time that it costs
    """

    action: Literal["float", "own scales"]
    tensors: tuple[str, ...]
    nodes: tuple[str, ...]
    reason: str
    output: str
    before: float | None
    after: float | None
    products: float
    time: float


GOOD = 30.0
"""dB of an output from which on accuracy is not lost."""

POOR = 20.0
"""dB of an output below which it usually is: noise of a hundredth of the signal's power."""

LOST = 10.0
"""dB below which an output, or a slice of it, is lost: noise of a tenth of the signal's power."""


@dataclass(frozen=True)
class Slice:
    """A part of an output: all values with this index along this axis, and their ratio in dB."""

    axis: int
    index: int
    sqnr: float


@dataclass(frozen=True)
class Measured:
    """What was measured of one output. What it does not have is None.

    values     compared, over all samples; 0: nothing was measured
    sqnr       dB of a float output as a whole
    equal      share of equal values of any other output
    worst      slice along the axis of channels of a float output that has the least ratio
    agreement  share of rows with the same largest value, where the output holds classes
    kl         KL(float ‖ quantized) in nats, mean over rows, where it holds classes
    infinite   values of the float model that are NaN or infinite
    lost       values that only the quantized model makes NaN or infinite
    shapes     (float, quantized): the first that differ, as text
    """

    values: int = 0
    sqnr: float | None = None
    equal: float | None = None
    worst: Slice | None = None
    agreement: float | None = None
    kl: float | None = None
    infinite: int = 0
    lost: int = 0
    shapes: tuple[str, str] | None = None

    @property
    def db(self) -> float | None:
        """What the output is worth: the least of its ratios; None, and not "exact", where nothing was measured.

        A value that is not float is kept or not, so noise to signal is the share of those that are not.
        """
        share = None
        if self.equal is not None:
            share = -10 * math.log10(1 - self.equal) if self.equal < 1 else math.inf
        known = (self.sqnr, share, None if self.worst is None else self.worst.sqnr)
        return min((ratio for ratio in known if ratio is not None), default=None)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measured:
        """What `plain` made plain values of; keys of other versions are left out."""
        found = {f.name: values[f.name] for f in fields(cls) if values.get(f.name) is not None}
        for name in ("sqnr", "equal", "agreement", "kl"):
            found |= {name: float(found[name])} if name in found else {}
        if "worst" in found:
            found["worst"] = Slice(found["worst"]["axis"], found["worst"]["index"], float(found["worst"]["sqnr"]))
        return cls(**found | ({"shapes": tuple(found["shapes"])} if "shapes" in found else {}))


@dataclass(frozen=True)
class Comparison:
    """All outputs of two models, by name, over so many samples."""

    outputs: Mapping[str, Measured] = field(default_factory=dict)
    samples: int = 0

    @property
    def sqnr(self) -> dict[str, float]:
        """dB of each float output as a whole."""
        return {name: one.sqnr for name, one in self.outputs.items() if one.sqnr is not None}

    @property
    def worst(self) -> float | None:
        """What the worst output is worth; None where nothing was measured."""
        return worst_of(self.outputs)


Cause = Literal["saturation", "wrap", "rounded input", "kernel", "unknown"]


@dataclass(frozen=True)
class Departure:
    """An output that is worth less where the model runs than as it is written, by more than its noise explains.

    here     on this processor; else on x64 without VNNI, computed in numpy
    output   that is worth the least there
    run      what was measured of it there
    written  the same with the arithmetic that the file says
    layers   that differ first, given equal inputs, in order of the graph; three at most
    cause    saturation: products are added in 16 bits; wrap: an int32 bias leaves no room for the products; rounded
             input: a kernel for weights in blocks rounds its floats to 8 bits; kernel: another one of the runtime's;
             unknown: no layer alone differs by more than a rounding
    samples  that both were measured on
    runtime  that runs it
    """

    here: bool
    output: str
    run: Measured
    written: Measured
    layers: tuple[str, ...]
    cause: Cause
    samples: int
    runtime: str = "onnxruntime"


@dataclass(frozen=True)
class Proof:
    """The outputs of a quantized model against the float one.

    run           as the runtime of the target runs it on this processor; empty where that is not installed
    written       with the arithmetic that the file says
    without_vnni  as x64 without VNNI runs it, on the first samples; empty where all layers are exact there
    unmeasured    why that was not measured, though layers may saturate; else empty
    departure     where it runs otherwise than it is written
    failure       what the runtime fails at, though the target may run it, or what it takes to have one; `run` is empty
                  then, or as `written`
    runtime       that `run` is of, with its version; empty: nothing was run
    """

    run: Comparison = field(default_factory=Comparison)
    written: Comparison = field(default_factory=Comparison)
    without_vnni: Comparison = field(default_factory=Comparison)
    unmeasured: str = ""
    departure: Departure | None = None
    failure: str = ""
    runtime: str = ""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run: the median, and what a tenth and nine tenths of the runs stay below."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """Both models, timed in turn, so that whatever else the machine does slows both.

    batch    samples in a run
    threads  that the runtime had; 0: its own choice
    runtime  which one ran both, with its version
    """

    original: Timing
    quantized: Timing
    rounds: int
    batch: int
    threads: int
    runtime: str

    @property
    def ratio(self) -> float:
        """Time of the quantized model as a part of the float one's."""
        return self.quantized.median / self.original.median


def worst_of(outputs: Mapping[str, Measured]) -> float | None:
    """What the output is worth that is worth the least; None where nothing was measured."""
    return min((one.db for one in outputs.values() if one.db is not None), default=None)


def least_alike(outputs: Mapping[str, Measured]) -> Measured:
    """The output whose classes diverge most; one that holds nothing where no output holds classes."""
    classes = [one for one in outputs.values() if one.kl is not None]
    return max(classes, key=lambda one: one.kl or 0.0, default=Measured())
