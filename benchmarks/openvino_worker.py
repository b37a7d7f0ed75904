"""Models of a subject in OpenVINO, in turn: `python benchmarks/openvino_worker.py SUBJECT MODELS ROUNDS`.

MODELS is JSON, name → file; the float model comes first. Floats are computed as floats, also where the processor has
bfloat16. Latency is CPU time, which on one thread is what other processes disturb least. What oneDNN may use of the
processor is in the environment (`ONEDNN_MAX_CPU_ISA`) before it makes a kernel.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latency import FEEDS, timed
from measure import leave_folder
from subjects import Feeds, material, scores_in

leave_folder()
import openvino  # noqa: E402  the package

SETTINGS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
METRICS = ("score", "overlap", "equal")
"""What a subject is judged by has one of these names."""


def products(compiled: Any) -> dict[str, int]:
    """Nodes that multiply matrices in the graph that is executed, and those of them on integers.

    OpenVINO has attention in one node, with products of its own: these are not counted.
    """
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kernels = [one["primitiveType"].astype(str) for one in told if one["layerType"].astype(str) in PRODUCTS]
    return {"integer": sum(name.lower().endswith("i8") for name in kernels), "all": len(kernels)}


def main(subject: str, models: str, rounds: str) -> None:
    """Measure and print."""
    core = openvino.Core()
    original, feeds = material(subject, FEEDS)
    files = {"float": original, **{name: Path(path) for name, path in json.loads(models).items()}}
    compiled = {path: core.compile_model(path, "CPU", SETTINGS) for path in files.values()}

    def run(path: Path, feeds: Feeds) -> list[list[Any]]:
        return [[*compiled[path](feed).values()] for feed in feeds]

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for name, path in files.items():
            found = scores_in(run, subject, path)
            metric = next(found[key] for key in METRICS if key in found)
            yield name, {"metric": metric, **found, "products": products(compiled[path])}

    found = dict(rows())
    times = timed({name: compiled[path] for name, path in files.items()}, feeds, int(rounds), time.process_time)
    for name, row in found.items():
        row |= {"latency": times["ratio"][name], "ms": times["ms"][name]}
    processor = core.get_property("CPU", "FULL_DEVICE_NAME")
    print(json.dumps({"processor": processor, "openvino": openvino.get_version().partition("-")[0], "models": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
