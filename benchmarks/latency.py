"""INT8 against float on one thread, measured in turn: `python benchmarks/latency.py FLOAT.onnx INT8.onnx [ROUNDS]`."""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort


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


def main(reference: str, quantized: str, rounds: str = "100") -> None:
    models = {"float": session(reference), "int8": session(quantized)}
    data = feed(models["float"])
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(int(rounds) + 10):
        for name, model in models.items():
            start = time.perf_counter()
            model.run(None, data)
            if turn >= 10:  # warm-up
                seconds[name].append(time.perf_counter() - start)
    ratio = median(q / f for f, q in zip(seconds["float"], seconds["int8"], strict=True))
    print(
        json.dumps(
            {"float_ms": 1e3 * median(seconds["float"]), "int8_ms": 1e3 * median(seconds["int8"]), "ratio": ratio}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
