"""How time and memory grow with a model: `python benchmarks/large_models.py [chain 5000] [gemm 1] [transformer 12]`.

chain        so many small convolutions with a ReLU behind each: CPU seconds, and peak memory
gemm         one matrix of so many GB in a single file: peak memory as a multiple of its size
transformer  so many blocks of attention and two layers, width 1,024 (50 MB each), on 16 sequences of 128: seconds of
             each stage, and peak memory

`--preset NAME --fields JSON` quantizes with another preset, or fields of it; `write KIND SIZE PATH` only makes a model.
Prints a line of JSON per model. CPU seconds count all threads, imports excluded; each model is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import ROOT, machine, measured, metered

SAMPLES = {"transformer": 16}
"""Of other kinds there are 8."""

FLOAT = 1  # onnx's number of the type
WIDTH, TOKENS = 1024, 128
SIDE = 16384
"""Inputs of the matrix."""


def chain(layers: int) -> tuple[object, tuple[int, ...]]:
    """The model, and the shape of a sample."""
    import numpy as np
    from onnx import helper, numpy_helper

    rng, nodes, weights, dims = np.random.default_rng(0), [], [], ["N", 4, 4, 4]
    for i in range(layers):
        weight = (0.7 * rng.standard_normal((4, 4, 1, 1))).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]))
    ends = [[helper.make_tensor_value_info(f"x{i}", FLOAT, dims)] for i in (0, layers)]
    return _model(helper.make_graph(nodes, "chain", *ends, weights)), (1, 4, 4, 4)


def gemm(size: float) -> tuple[object, tuple[int, ...]]:
    """The model, and the shape of a sample."""
    import numpy as np
    from onnx import helper, numpy_helper

    columns = int(size * 2**28 / SIDE)
    weight = np.random.default_rng(0).standard_normal((SIDE, columns), np.float32)
    ends = [[helper.make_tensor_value_info(name, FLOAT, ["N", n])] for name, n in (("x0", SIDE), ("y", columns))]
    node = helper.make_node("Gemm", ["x0", "w"], ["y"])
    return _model(helper.make_graph([node], "gemm", *ends, [numpy_helper.from_array(weight, "w")])), (1, SIDE)


def transformer(blocks: int) -> tuple[object, tuple[int, ...]]:
    """The model, and the shape of a sample."""
    import zoo_models

    return zoo_models.transformer(WIDTH, blocks, TOKENS, 0), (1, TOKENS, WIDTH)


def _model(graph: object) -> object:
    from onnx import helper

    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


MODELS = {"chain": chain, "gemm": gemm, "transformer": transformer}


def write(kind: str, size: str, path: str) -> None:
    """Write the model; prints the shape of a sample, and how many there are."""
    import onnx

    model, shape = MODELS[kind](float(size) if kind == "gemm" else int(size))  # type: ignore[operator]
    onnx.save(model, path)
    print(json.dumps({"samples": [SAMPLES.get(kind, 8), *shape]}))


def quantize(path: str, preset: str, fields: str, samples: str) -> None:
    """Quantize, and print what it took."""
    from dataclasses import replace

    import numpy as np
    import onnxscript.optimizer  # noqa: F401  imported before the clock starts

    from quark_onnx import ModelQuantizer, get_default_config

    rng = np.random.default_rng(1)
    feeds = list(rng.standard_normal(json.loads(samples), np.float32))
    config = replace(get_default_config(preset), **json.loads(fields))
    with metered() as found:
        report = ModelQuantizer(config).quantize_model(path, path + ".quantized", feeds).report
    size = Path(path + ".quantized").stat().st_size
    print(json.dumps({**found, "stages": report.seconds, "fused": report.fused, "sqnr": report.sqnr, "bytes": size}))


def main(words: list[str]) -> None:
    """Measure every model in a process that another one of its own has written."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*", default=["chain", "2500", "5000", "gemm", "0.5", "1"])
    parser.add_argument("--preset", default="S8S8_AAWS")
    parser.add_argument("--fields", default="{}")
    asked, kind = parser.parse_args(words), ""
    for word in asked.words:
        if word in MODELS:
            kind = word
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{kind}.onnx"
            samples = measured([sys.executable, __file__, "write", kind, word, path], ROOT)["samples"]
            how = [asked.preset, asked.fields, json.dumps(samples)]
            found = measured([sys.executable, __file__, "quantize", path, *how], ROOT)
        print(json.dumps({"kind": kind, "size": word, **found, "machine": machine()}), flush=True)


if __name__ == "__main__":
    first, *rest = sys.argv[1:] or [""]
    if first in ("write", "quantize"):
        {"write": write, "quantize": quantize}[first](*rest)
    else:
        main(sys.argv[1:])
