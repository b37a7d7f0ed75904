"""`quant_pre_process`: the float model as quantizers are put into it, as a file of its own.

Preparing is a part of quantizing here: nobody needs this step. What is made of the file are the same bytes as of the
model itself, but for float16, whose folded weights are rounded to it once more.
"""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

from quark_onnx.core.atomic_files import free_output
from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.checked_fields import flag
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import io
from quark_onnx.graph.to_float16 import to_float16
from quark_onnx.opened_job import open_job
from quark_onnx.ort.extra_options import says
from quark_onnx.ort.model_nodes import Source

_SYMBOLIC = "shapes come from the model and a run of it, not from symbols; leave it out"
_OLDER = "input_model_path"
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
    input_model: Source | None = None,
    output_model_path: str | Path | None = None,
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
    **older: Any,
) -> None:
    """Write the prepared float model: BatchNorm, constants and neighbours folded, shapes known.

    Args:
        skip_optimization: nothing is folded; the model is no more than read, named and written.
        skip_symbolic_shape: either value; shapes are never inferred with symbols.
        save_as_external_data: weights are written beside the model, in one file, with or without
            `all_tensors_to_one_file`.
        older: `input_model_path`, an older name of `input_model`.

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
    for name, value in (
        ("skip_symbolic_shape", skip_symbolic_shape),
        ("save_as_external_data", save_as_external_data),
        ("all_tensors_to_one_file", all_tensors_to_one_file),
    ):
        flag(name, value)
    for name in older:
        if name != _OLDER:
            known = signature(quant_pre_process).parameters
            raise ConfigError(f"quant_pre_process has no parameter {name!r}{nearest(name, known)}")
    given = [model for model in (input_model, older.get(_OLDER)) if model is not None]
    if len(given) != 1:
        raise ConfigError(f"quant_pre_process reads one model: give it as input_model, or by the older name {_OLDER}")
    output = free_output(given[0], output_model_path)
    if output is None:
        raise ConfigError("quant_pre_process writes a file: give its name as output_model_path")
    skipped = flag("skip_optimization", skip_optimization)
    job = open_job(given[0], QuantizationConfig(optimize_model=not skipped))
    half = job.widened
    prepared = job.prepared if half is None else to_float16(job.prepared, keep=half.wide, interface=half.interface)
    io.save(prepared, output, source=job.model, external=save_as_external_data)


def _refuse(**given: object) -> None:
    for name, value in given.items():
        taken, instead = FIXED[name]
        if not says(value, taken):
            raise ConfigError(f"{name} does not take {value!r} here: {instead}")
