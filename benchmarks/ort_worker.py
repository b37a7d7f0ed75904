"""One call of onnxruntime.quantization, or of our port of it: `python ort_worker.py TOOL SUBJECT OUTPUT CALL SAMPLES`.

TOOL is the package that the names are imported from; all else is the same. Seconds are those of the whole call, with
`quant_pre_process`; imports and reading the samples are excluded. Where the tool fails, what it says is printed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import onnxscript.optimizer  # noqa: F401  imported before the clock starts
from measure import metered
from subjects import material
from tasks import Reader

CALLS: dict[str, dict[str, Any]] = {"static": {}, "channel": {"per_channel": True}, "dynamic": {}}
"""What differs from the defaults."""

INTEGER = ("QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
INTEGER = (*INTEGER, "DynamicQuantizeMatMul", "MatMulNBits")
FLOAT = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
"""Kernels of layers, as they are called in a model that onnxruntime has optimized."""


def call(tool: str, source: Path, output: Path, how: str, reader: Reader) -> None:
    """What a user's script does."""
    names = import_module(tool)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        names.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if how == "dynamic":
            names.quantize_dynamic(str(prepared), str(output), **CALLS[how])
        else:
            names.quantize_static(str(prepared), str(output), reader, **CALLS[how])


def layers(model: Path) -> tuple[int, int]:
    """How many layers onnxruntime runs on integers, and how many there are."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        kernels = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    done = sum(kernel in INTEGER for kernel in kernels)
    return done, done + sum(kernel in FLOAT for kernel in kernels)


def main(tool: str, subject: str, output: str, how: str, samples: str) -> None:
    """Quantize and print the measurements."""
    import_module(tool)
    source, feeds = material(subject, int(samples))
    try:
        with metered() as found:
            call(tool, source, Path(output), how, Reader(feeds))
        found |= {"layers": layers(Path(output)), "bytes": Path(output).stat().st_size}
    except Exception as error:  # of another tool, that has classes of its own
        found = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
