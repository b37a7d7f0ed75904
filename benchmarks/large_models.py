"""How time and memory grow with a model: `python benchmarks/large_models.py [chain 2500 5000] [gemm 0.5 1]
[transformer 12]`.

chain        so many small convolutions with a ReLU behind each: CPU seconds, and peak memory
gemm         one matrix of so many GB in a single file: peak memory as a multiple of its size
transformer  so many blocks of attention and two layers, width 1,024, 50 MB each, on 16 sequences of 128:
             MATMUL_NBITS_GPTQ, the others S8S8_AAWS

Prints a line of JSON per model. CPU seconds count all threads, imports excluded; each model is a process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from measure import ROOT, machine, measured, metered

SAMPLES = 8
TOKENS, WIDTH = 128, 1024
FLOAT = 1  # onnx's number of the type
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


def _model(graph: object) -> object:
    from onnx import helper

    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def transformer(blocks: float) -> tuple[object, tuple[int, ...]]:
    """The model, and the shape of a sample."""
    from zoo_models import transformer as made

    model = made(WIDTH, int(blocks), TOKENS, 0)
    for node in model.graph.node:  # every model here reads x0
        node.input[:] = ["x0" if name == "x" else name for name in node.input]
    model.graph.input[0].name = "x0"
    return model, (2, TOKENS, WIDTH)


MODELS = {"chain": chain, "gemm": gemm, "transformer": transformer}


def write(kind: str, size: str, path: str) -> None:
    """Write the model; prints the shape of a sample."""
    import onnx

    model, shape = MODELS[kind](int(size) if kind == "chain" else float(size))  # type: ignore[operator]
    onnx.save(model, path)
    print(json.dumps({"shape": shape}))


def quantize(path: str, shape: str, kind: str) -> None:
    """Quantize, and print what it took."""
    import numpy as np
    import onnxscript.optimizer  # noqa: F401  imported before the clock starts

    from quark_onnx import ModelQuantizer, get_default_config

    rng = np.random.default_rng(1)
    feeds = [{"x0": rng.standard_normal(json.loads(shape), np.float32)} for _ in range(SAMPLES)]
    preset = "MATMUL_NBITS_GPTQ" if kind == "transformer" else "S8S8_AAWS"
    with metered() as found:
        report = ModelQuantizer(get_default_config(preset)).quantize_model(path, path + ".int8", feeds).report
    print(json.dumps({**found, "stages": report.seconds, "sqnr_db": report.sqnr}))


def main(kinds: dict[str, list[str]]) -> None:
    """Measure every model in a process that another one of its own has written."""
    for kind, sizes in kinds.items():
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{kind}.onnx"
                shape = measured([sys.executable, __file__, "write", kind, size, path], ROOT)["shape"]
                found = measured([sys.executable, __file__, "quantize", path, json.dumps(shape), kind], ROOT)
            print(json.dumps({"kind": kind, "size": size, **found, "machine": machine()}), flush=True)


if __name__ == "__main__":
    first, *rest = sys.argv[1:] or ["chain", "2500", "5000", "gemm", "0.5", "1"]
    if first in ("write", "quantize"):
        {"write": write, "quantize": quantize}[first](*rest)
    else:
        asked: dict[str, list[str]] = {}
        for word in (first, *rest):
            asked.setdefault(word, []) if word in MODELS else asked[list(asked)[-1]].append(word)
        main(asked)
