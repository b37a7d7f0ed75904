"""Models against the first one on one thread, in turn: `python benchmarks/latency.py FLOAT.onnx INT8.onnx … [ROUNDS]`.

The first may also be an int8 model, e.g. one with `weight_pairs="off"` against one with safe pairs.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

WARM_UP = 10


def session(path: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    shapes = {
        i.name: [d if isinstance(d, int) else (1 if k == 0 else 64) for k, d in enumerate(i.shape)]
        for i in model.get_inputs()
    }
    kinds = {i.name: i.type for i in model.get_inputs()}
    return {
        name: np.ones(shape, np.int64) if "int64" in kinds[name] else rng.uniform(-1, 1, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def main(*arguments: str) -> None:
    rounds = int(arguments[-1]) if arguments[-1].isdigit() else 100
    paths = arguments[:-1] if arguments[-1].isdigit() else arguments
    models = {path: session(path) for path in paths}
    data = feed(models[paths[0]])
    seconds: dict[str, list[float]] = {path: [] for path in models}
    for turn in range(rounds + WARM_UP):
        for path, model in models.items():
            start = time.perf_counter()
            model.run(None, data)
            if turn >= WARM_UP:
                seconds[path].append(time.perf_counter() - start)
    first = seconds[paths[0]]
    ratios = {path: median(b / a for a, b in zip(first, times, strict=True)) for path, times in seconds.items()}
    print(json.dumps({"ms": {path: 1e3 * median(times) for path, times in seconds.items()}, "ratio": ratios}))


if __name__ == "__main__":
    main(*sys.argv[1:])
