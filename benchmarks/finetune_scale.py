"""How the cost of fine-tuning grows: `python benchmarks/finetune_scale.py [CASE …]`, all cases by default.

    depth     AdaRound on 25 and on 100 convolutions (3×3, 16 channels, 16×16, Relu) in a row: seconds per layer, and
              the last quarter of the 100 layers to the first
    wide      AdaRound on one convolution 3×3, 512 → 512 channels (4608 weights in a row), on 128 images of 14×14
    samples   AdaRound on 6 convolutions with 2,000 samples to the same with 200: time and peak memory

Each measurement is a process of its own; `cpu_seconds` are those of all its threads, which other processes disturb less
than `seconds`. Seconds of a layer are from its start to that of the next one, so that running
the segment in between is included. Prints one JSON document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from measure import ROOT, machine, measured

SIZES = {  # layers, channels, size of the image, samples
    "depth-25": (25, 16, 16, 100),
    "depth-100": (100, 16, 16, 100),
    "wide": (1, 512, 14, 128),
    "samples-200": (6, 16, 16, 200),
    "samples-2000": (6, 16, 16, 2000),
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


def quantize(size: str) -> None:
    """One measurement, in this process."""
    import resource
    import time

    import numpy as np
    import onnxscript.optimizer  # noqa: F401  imported before the clock starts

    from quark_onnx import ModelQuantizer, get_default_config

    layers, channels, side, samples = SIZES[size]
    model = chain(layers, channels, side)
    rng = np.random.default_rng(1)
    data = [rng.standard_normal((1, channels, side, side), np.float32) for _ in range(samples)]
    starts: list[float] = []

    def tell(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("tune ") and ":" not in stage:  # the second word on a layer has its SQNR behind a colon
            starts.append(time.perf_counter())

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, busy = time.perf_counter(), time.process_time()
    report = ModelQuantizer(get_default_config("S8S8_AAWS_ADAROUND"), tell).quantize_model(model, None, data).report
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"seconds": round(seconds, 2), "tune": report.seconds["tune"], "peak_gb": round(peak / 2**20, 3)}
    found |= {"cpu_seconds": round(time.process_time() - busy, 2), "before_gb": round(before / 2**20, 3)}
    layer = [round(b - a, 4) for a, b in pairwise(starts)]
    print(json.dumps({**found, "sqnr_db": list(report.sqnr.values()), "layer_seconds": layer}))


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
    cases = {"depth": depth, "wide": wide, "samples": samples}
    unknown = set(arguments) - cases.keys()
    if unknown:
        sys.exit(f"unknown case {min(unknown)!r}; there are {', '.join(cases)}")
    found = {name: cases[name]() for name in arguments or cases}
    print(json.dumps({"machine": machine(), **found}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
