"""The table of layers: what each choice of each layer does and costs; and the path through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.runtimes.known import own_runtime
from quark_onnx.graph import Model, io
from quark_onnx.graph.view import is_op
from quark_onnx.numerics.search.upgrade_path import UpgradePath, upgrade_path
from quark_onnx.optimize.layer_choices import Layer, followers_of, layers_of
from quark_onnx.optimize.layer_damage import Measure, layer_damages
from quark_onnx.optimize.records import BYTES, EIGHTS, FOURS, INTEGERS, WORDS, LayerOption, LayerRow, Objective
from quark_onnx.result import Result
from quark_onnx.stages.protect.integer_work import PRODUCT, VALUE, Work, work_of

WEIGHTS: Mapping[Objective, tuple[float, float]] = {
    "size": (1.0, 0.03),
    "balanced": (0.5, 0.5),
    "latency": (0.02, 1.0),
}
"""What counts: bytes, in those of 8-bit weights; and time, in that of the float model. Of two choices of about one size
the faster one is taken, unless it costs much: integer kernels are what 8 bits are for."""

OF_MODELS: Mapping[Objective, tuple[float, float]] = {**WEIGHTS, "size": (1.0, 0.1)}
"""The same for whole models that were tried: one that is a little smaller and takes five times as long is no better."""

CONVOLUTIONS = ("Conv", "ConvTranspose")
ALONE = 2.0
"""Time of a convolution with weights alone in integers, in that of a float one: onnxruntime makes floats of them in
every run, and packs only constant weights for its fastest kernels. 1.8 to 2 on MobileNet and ResNet-20."""

WIDE = 2.0
"""Time of integer products with 16-bit activations, in that of 8 bits: as accelerators have them, at half the pace."""

MOST_SAMPLES, LEAST_SAMPLES = 8, 2
HEADER = 16
"""Bytes of a constant in the file, beside its name and its numbers."""

LOOKED_AT = 3
"""Runs of the model for each layer and sample: its weights, most of them once, and what it reads."""

LOOKS = 1e12
"""Multiply-adds that may be spent on the table, where that leaves enough samples: half a minute on one thread."""

NODE = 2e5
"""Multiply-adds in the time that onnxruntime takes for a node without any."""


@dataclass(frozen=True, eq=False)
class LayerTable:
    """Rows, what each option costs, and the path from the cheapest choice of all to the most accurate one."""

    rows: tuple[LayerRow, ...]
    path: UpgradePath
    costs: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, rows: Sequence[LayerRow], objective: Objective) -> LayerTable:
        """The path for an objective."""
        eight = sum(row.weights for row in rows) or 1
        time = sum(max(option.time for option in row.options) for row in rows) or 1.0
        by_bytes, by_time = WEIGHTS[objective]
        costs = tuple(tuple(by_bytes * o.bytes / eight + by_time * o.time / time for o in row.options) for row in rows)
        damages = [[option.damage for option in row.options] for row in rows]
        pairs = [list(zip(some, others, strict=True)) for some, others in zip(costs, damages, strict=True)]
        return cls(tuple(rows), upgrade_path(pairs), costs)

    @property
    def steps(self) -> int:
        """Of the path."""
        return len(self.path.steps)

    def options(self, count: int) -> list[LayerOption]:
        """Of each row, after so many steps of the path."""
        return [row.options[index] for row, index in zip(self.rows, self.path.chosen(count), strict=True)]

    def cost(self, count: int) -> float:
        """After so many steps; about 1 where all weights have 8 bits, and size counts."""
        return sum(costs[index] for costs, index in zip(self.costs, self.path.chosen(count), strict=True))

    def damage(self, count: int) -> float:
        """That the table says."""
        return sum(option.damage for option in self.options(count))

    def choices(self, count: int) -> dict[str, str]:
        """Node → choice."""
        pairs = zip(self.rows, self.options(count), strict=True)
        return {node: option.choice for row, option in pairs for node in row.nodes}

    def with_chosen(self, choices: Mapping[str, str]) -> tuple[LayerRow, ...]:
        """The rows with what was chosen."""
        return tuple(replace(row, chosen=choices.get(row.nodes[0], "")) for row in self.rows)


def table_rows(
    result: Result,
    target: Target,
    feeds: Sequence[Feed],
    work: Work,
    measure: Measure,
    clocked: bool,
    counted: Counted | None,
    tick: Callable[[int, int], None],
) -> list[LayerRow]:
    """Measure it.

    Args:
        result: of a configuration in 8 bits, without protection.
        feeds: that taught.
        clocked: times are microseconds of kernels on this machine, and not multiply-adds.
    """
    model, plan = result.evidence.model, result.plan
    layers = layers_of(model, plan, target)
    around, between = _bytes_around(result, layers), followers_of(model, plan, layers)
    count = samples_to_look_at(len(feeds), len(model.graph), sum(work.products.values()), len(layers))
    few = [feeds[i * len(feeds) // count] for i in range(min(count, len(feeds)))]
    found = layer_damages(model, plan, layers, few, measure, counted, tick)
    as_float, as_integers = _clocks(result, few, target) if clocked else (work.products, _thirds(work))
    unit = sum(as_float.values()) / max(1, sum(work.products.values()))
    rows = []
    for layer, damages in zip(layers, found, strict=True):
        slow, fast = (sum(times.get(name, 0.0) for name in layer.nodes) for times in (as_float, as_integers))
        op_type = layer.every[0].op_type
        rounded = slow * (ALONE if op_type in CONVOLUTIONS else 1.0) + unit * VALUE[True] * layer.elements
        times = {BYTES: fast, WORDS: WIDE * fast, EIGHTS: rounded, FOURS: rounded}
        options = [
            LayerOption(c, d, layer.bytes(c) + around * (c in INTEGERS), times.get(c, slow)) for c, d in damages.items()
        ]
        options.sort(key=lambda option: (option.bytes, option.time, option.damage))
        also = tuple(node for node, near in between.items() if layer in near)
        rows.append(LayerRow(layer.nodes, op_type, layer.elements, tuple(options), followers=also))
    return rows


def samples_to_look_at(given: int, nodes: int, products: int, layers: int) -> int:
    """Of so many, for a model with so many nodes, multiply-adds and layers."""
    affordable = int(LOOKS / ((products + NODE * nodes) * LOOKED_AT * max(1, layers)))
    return max(LEAST_SAMPLES, min(MOST_SAMPLES, given, affordable))


def _thirds(work: Work) -> dict[str, float]:
    return {name: count * PRODUCT for name, count in work.products.items()}


def _clocks(result: Result, feeds: Sequence[Feed], target: Target) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds by node, of the float model and of the quantized one."""
    evidence, runtime = result.evidence, own_runtime(target)
    assert runtime is not None
    return runtime.kernel_times(evidence.model, feeds), runtime.kernel_times(evidence.quantized, feeds)


def _bytes_around(result: Result, layers: Sequence[Layer]) -> int:
    """What quantizers of activations take in the file for each layer: nodes, scales, zero points, and their names."""
    graph, report = result.evidence.model.graph, result.report
    names = sum(len(name) + HEADER for name in graph.initializers)
    before = sum(map(io.node_bytes, graph)) + names
    count = sum(BYTES in layer.formats for layer in layers)
    return max(0, report.stored["quantized"] - report.bytes["quantized"] - before) // max(1, count)


def work_of_layers(model: Model, plan: Plan, feed: Feed) -> Work:
    """What the layers do, and all else that may be quantized."""
    layers = {node.name or "" for node in model.graph if is_op(node, *LAYERS)}
    return work_of(model, layers | plan.nodes.keys(), feed)


def estimated_time(work: Work, integers: Collection[str], alone: Collection[str], wide: Collection[str]) -> float:
    """Of a model, in that of the float one; alone: convolutions with weights alone in integers; wide: in 16 bits."""
    extra = (ALONE - 1) * work.on_integers(alone) + (WIDE - 1) * PRODUCT * work.on_integers(wide)
    return (work.time(integers) + extra) / max(1.0, work.time(()))


def summary(choices: Mapping[str, str]) -> str:
    """How many nodes have which choice: `20 w8, 6 w4, 2 float`."""
    counts = Counter(choice.partition("/")[0] for choice in choices.values())
    return ", ".join(f"{count} {choice}" for choice, count in counts.most_common())
