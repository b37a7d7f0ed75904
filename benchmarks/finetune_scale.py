"""How the cost of fine-tuning grows: `python benchmarks/finetune_scale.py [CASE …]`, all cases by default.

    depth     AdaRound on 25 and on 100 convolutions (3×3, 16 channels, 16×16, Relu) in a row: seconds per layer, and
              the last quarter of the 100 layers to the first
    wide      AdaRound on one convolution 3×3, 512 → 512 channels (4608 weights in a row), on 64 images of 14×14
    samples   AdaRound on 6 convolutions with 2,000 samples to the same with 200: time and peak memory
    transformer   AdaRound on 8 blocks of attention and two layers, width 512, 100 MB of weights, on 64 sequences of 64

Each measurement is a process of its own; `cpu_seconds` are those of all its threads, which other processes disturb less
than `seconds`. Seconds of a layer are from its start to that of the next one, so that running the segment in between is
included; `kinds` has them by operator and shape of the weight, with the peak memory while these were tuned (Linux).
`sqnr_db` is of the model, as onnxruntime runs it; `told` has the layers: without tuning, and with what was chosen.
Prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from measure import ROOT, machine, measured, metered, recent_peak_gb

SIZES = {  # layers, channels, size of the image (tokens of a sequence), samples
    "depth-25": (25, 16, 16, 100),
    "depth-100": (100, 16, 16, 100),
    "wide": (1, 512, 14, 64),
    "samples-200": (6, 16, 16, 200),
    "samples-2000": (6, 16, 16, 2000),
    "transformer": (8, 512, 64, 64),
}


def chain(layers: int, channels: int, size: int) -> Any:
    """A model of convolutions in a row, each with a Relu, at He's initial weights."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shape = [None, channels, size, size]
    nodes, weights = [], []
    for i in range(layers):
        kernel = rng.normal(0, (2 / (9 * channels)) ** 0.5, (channels, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"y{i}"], f"conv{i}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"y{i}"], [f"x{i + 1}"], f"relu{i}"))
    source = helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)
    target = helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "chain", [source], [target], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Marks:
    """A progress callback: when each layer of fine-tuning began, peak memory since the one before, and what was told.

    A layer goes from when so many layers are said to be done until one more is.
    """

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.peaks: list[float] = []
        self.told: list[str] = []

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage.startswith("tune ") and done >= len(self.starts):
            self.starts.append(time.perf_counter())
            self.peaks.append(recent_peak_gb())
        if stage.startswith("tune ") and "dB" in stage:
            self.told.append(stage.removeprefix("tune "))


def quantize(size: str) -> None:
    """One measurement, in this process."""
    import numpy as np
    import onnxscript.optimizer  # noqa: F401  imported before the clock starts
    import zoo_models

    from quark_onnx import ModelQuantizer, get_default_config

    layers, width, side, count = SIZES[size]
    sequences = size == "transformer"
    model = zoo_models.transformer(width, layers, side, 0) if sequences else chain(layers, width, side)
    shape = (1, side, width) if sequences else (1, width, side, side)
    rng = np.random.default_rng(1)
    draw = rng.standard_normal if sequences else rng.random  # what convolutions read is seldom negative
    data = [draw(shape, np.float32) for _ in range(count)]
    marks, before = Marks(), recent_peak_gb()
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS_ADAROUND"), marks)
    with metered() as found:
        report = quantizer.quantize_model(model, None, data).report
    seconds = [round(b - a, 4) for a, b in pairwise(marks.starts)]
    found |= {"peak_gb": max(found["peak_gb"], *marks.peaks), "before_gb": before, "tune": report.seconds["tune"]}
    found |= {"sqnr_db": list(report.sqnr.values()), "kinds": by_kind(model, report.tuned, seconds, marks.peaks[1:])}
    print(json.dumps({**found, "layer_seconds": seconds, "told": marks.told}))


def by_kind(model: Any, records: Sequence[Any], seconds: Sequence[float], peaks: Sequence[float]) -> dict[str, Any]:
    """What the layers with one operator and one shape of weight took; all sequences are in the order of tuning."""
    dims = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    kinds = {node.name: f"{node.op_type} {dims.get(node.input[1])}" for node in model.graph.node if node.input[1:]}
    rows: dict[str, list[tuple[str, float, float]]] = {}
    for record, *row in zip(records, seconds, peaks, strict=True):
        rows.setdefault(kinds[record.node], []).append((record.choice, *row))
    found = {}
    for kind, each in rows.items():
        choices, spent, used = zip(*each, strict=True)
        found[kind] = {"choices": Counter(choices), "seconds": round(median(spent), 4), "peak_gb": max(used)}
    return found


def depth() -> dict[str, Any]:
    """Seconds per layer by depth, and over the depth."""
    few, many = process("depth-25"), process("depth-100")
    seconds = many.pop("layer_seconds")
    few.pop("layer_seconds")
    quarter = len(seconds) // 4
    first, last = seconds[:quarter], seconds[-quarter:]
    return {
        "25": few,
        "100": many,
        "layer_seconds": {"median": median(seconds), "min": min(seconds), "max": max(seconds)},
        "last_to_first_quarter": {"mean": mean(last) / mean(first), "median": median(last) / median(first)},
        "per_layer_100_to_25": (many["tune"] / 100) / (few["tune"] / 25),
    }


def wide() -> dict[str, Any]:
    """Seconds and peak memory of one wide layer."""
    return process("wide")


def transformer() -> dict[str, Any]:
    """Seconds and peak memory by kind of layer."""
    return process("transformer")


def samples() -> dict[str, Any]:
    """What ten times as many samples cost."""
    few, many = process("samples-200"), process("samples-2000")
    keys = ("seconds", "tune", "peak_gb")
    return {"200": few, "2000": many, "ratio": {key: many[key] / few[key] for key in keys}}


def process(size: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    return measured([sys.executable, Path(__file__).resolve(), "--quantize", size], ROOT)


def main(arguments: Sequence[str]) -> None:
    """Measure and print; or, as a process that `process` started, one measurement."""
    if arguments[:1] == ["--quantize"]:
        quantize(arguments[1])
        return
    cases = {"depth": depth, "wide": wide, "samples": samples, "transformer": transformer}
    unknown = set(arguments) - cases.keys()
    if unknown:
        sys.exit(f"unknown case {min(unknown)!r}; there are {', '.join(cases)}")
    found = {name: cases[name]() for name in arguments or cases}
    print(json.dumps({"machine": machine(), **found}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
