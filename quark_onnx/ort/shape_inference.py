"""`quant_pre_process`: the float model as quantizers are put into it, as a file of its own.

Preparing is a part of quantizing here: nobody needs this step. What is made of the file are the same bytes as of the
model itself, but for float16, whose folded weights are rounded to it once more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quark_onnx.core.atomic_files import free_output
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import io
from quark_onnx.graph.to_float16 import to_float16
from quark_onnx.opened_job import open_job
from quark_onnx.ort.model_nodes import Source

_SYMBOLIC = "shapes come from the model and a run of it, not from symbols; leave it out"
_FILE = "weights lie in one file beside the model, named after what they hold; leave it out"
FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "skip_onnx_shape": ((False,), "folding stands on shapes; leave it out"),
    "auto_merge": ((False,), _SYMBOLIC),
    "int_max": ((2**31 - 1,), _SYMBOLIC),
    "guess_output_rank": ((False,), _SYMBOLIC),
    "verbose": ((0,), "what was rewritten is told by the Result of quantizing; leave it out"),
    "external_data_location": ((None,), _FILE),
    "external_data_size_threshold": ((1024,), _FILE),
}
"""Parameters that choose nothing here: the values that are taken, and what there is instead of others."""


@told_as_such()
def quant_pre_process(
    input_model: Source,
    output_model_path: str | Path,
    skip_optimization: bool = False,
    skip_onnx_shape: bool = False,
    skip_symbolic_shape: bool = False,
    auto_merge: bool = False,
    int_max: int = 2**31 - 1,
    guess_output_rank: bool = False,
    verbose: int = 0,
    save_as_external_data: bool = False,
    all_tensors_to_one_file: bool = False,
    external_data_location: str | None = None,
    external_data_size_threshold: int = 1024,
) -> None:
    """Write the prepared float model: BatchNorm, constants and neighbours folded, shapes known.

    Args:
        skip_optimization: nothing is folded; the model is no more than read, named and written.
        skip_symbolic_shape: either value; shapes are never inferred with symbols.
        save_as_external_data: weights are written beside the model, in one file, with or without
            `all_tensors_to_one_file`.

    Raises:
        ConfigError: a parameter that has no counterpart.
        ModelError: the model cannot be read, or is quantized already.
    """
    _refuse(
        skip_onnx_shape=skip_onnx_shape,
        auto_merge=auto_merge,
        int_max=int_max,
        guess_output_rank=guess_output_rank,
        verbose=verbose,
        external_data_location=external_data_location,
        external_data_size_threshold=external_data_size_threshold,
    )
    output = free_output(input_model, output_model_path)
    assert output is not None
    job = open_job(input_model, QuantizationConfig(optimize_model=not skip_optimization))
    half = job.widened
    prepared = job.prepared if half is None else to_float16(job.prepared, keep=half.wide, interface=half.interface)
    io.save(prepared, output, source=job.model, external=save_as_external_data)


def _refuse(**given: object) -> None:
    for name, value in given.items():
        taken, instead = FIXED[name]
        if value not in taken:
            raise ConfigError(f"{name} does not take {value!r} here: {instead}")
