"""`quark-onnx compare`: a float model against a quantized one of any tool, on the same data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from quark_onnx.cli.console import out, print_json, progress, say, warn
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import CustomOps, DataFlags, RunBy, ShowFlags, show_flag
from quark_onnx.cli.matching_tensors import match, open_lifted
from quark_onnx.cli.tables import layer_table, new_table
from quark_onnx.clock import Progress
from quark_onnx.core.errors import ModelError, nearest
from quark_onnx.core.records import Proof
from quark_onnx.core.settings.checked_fields import named
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import tensor_sqnr
from quark_onnx.engine.proof_for_target import certified, proof_of
from quark_onnx.engine.result_wording import (
    brief_text,
    classes_text,
    measured_text,
    output_warnings,
    proof_warnings,
    size_warning,
    slice_text,
)
from quark_onnx.engine.saturation_certificate import summary
from quark_onnx.graph import Model, io


@spread
def compare_command(
    *,
    float_model: Annotated[Path, typer.Argument(metavar="FLOAT", help="The float model.", show_default=False)],
    quantized_model: Annotated[Path, typer.Argument(metavar="QUANT", help="The quantized model.", show_default=False)],
    data: DataFlags,
    custom_ops: CustomOps = None,
    target: RunBy = "cpu",
    layers: Annotated[bool, show_flag("--layers", help="Also the SQNR of every layer, worst first.")] = False,
    show: ShowFlags,
) -> None:
    """Measure how far a quantized model is from the float one on your data.

    Works for a QDQ model of any tool, if inputs and outputs have the names of the float model's. Outputs come from the
    runtime of the target with all optimizations, as in production, and beside it with the arithmetic as it is written;
    a warning tells where both differ, and why. Layers are measured as written.
    Of outputs that are not float, equal values are counted.

    - `quark-onnx compare model.onnx int8.onnx --data samples/`
    - `quark-onnx compare model.onnx int8.onnx --data samples/ --samples 100 --layers`
    - `quark-onnx compare model.onnx int8.onnx --data samples/ --target openvino`
    """
    model, quantized = (open_lifted(path, custom_ops or ()) for path in (float_model, quantized_model))
    row = TARGETS[named(target, tuple(TARGETS), "target")]
    check_interface(model, quantized)
    feeds = data.open(model)
    with progress(quiet=show.quiet) as tell:
        proved = certified(row, quantized)
        proof = proof_of(row, model, quantized, _Told(feeds, tell), proved)
        sqnr = {}
        if layers:
            tell("layers", 0, None)
            sqnr = layer_ratios(model, quantized, feeds)
    sizes = [
        io.stored_bytes(path, io.weight_bytes(m)) for path, m in ((float_model, model), (quantized_model, quantized))
    ]
    found = proof.run
    told = (*output_warnings(found.outputs, row.name), *proof_warnings(proof, row.name), *size_warning(*sizes))
    warn((*feeds.warnings, *told))
    if show.json:
        document = {"float": str(float_model), "quantized": str(quantized_model), "samples": proof.written.samples}
        document |= {"target": row.name, "runtime": proof.runtime}
        document |= {"outputs": found.outputs, "worst": found.worst, "written": proof.written.outputs}
        document |= {"without_vnni": proof.without_vnni, "departure": proof.departure, "certificates": proved}
        print_json(document | ({"layers": sqnr} if layers else {}))
    elif not show.quiet:
        if layers:
            out.print(layer_table(sqnr) if sqnr else "No layer of the quantized model could be matched.")
        _print(proof)
        if proved:
            say(f"Processors: {summary(proved)}.")


def check_interface(model: Model, quantized: Model) -> None:
    """Both models must take and give the same names.

    Raises:
        ModelError: one is missing.
    """
    sides = (
        ("input", quantized.graph.inputs, model.graph.inputs),
        ("output", model.graph.outputs, quantized.graph.outputs),
    )
    for kind, needed, present in sides:
        names = [value.name or "" for value in present]
        for value in needed:
            if value.name not in names:
                other = "float" if kind == "input" else "quantized"
                raise ModelError(
                    f"the {other} model has no {kind} {value.name!r}{nearest(value.name or '', names)}; "
                    "models are compared by the names of their inputs and outputs: rename it in one of them"
                )


@dataclass(frozen=True)
class _Told:
    """The feeds, each told of when it is taken."""

    feeds: Iterable[Feed]
    tell: Progress

    def __iter__(self) -> Iterator[Feed]:
        for number, feed in enumerate(self.feeds, start=1):
            yield feed
            self.tell("compare", number, None)


def layer_ratios(model: Model, quantized: Model, feeds: Iterable[Feed]) -> dict[str, float]:
    """SQNR in dB of every quantized tensor that has a counterpart in the float model."""
    pairs, base = match(model, quantized)
    return tensor_sqnr(base, quantized, feeds, pairs, optimized=False) if pairs else {}


def _print(proof: Proof) -> None:
    table = new_table("Output", "Whole", "Worst slice", "Classes", "As written", numbers=(1, 4))
    for name, one in proof.written.outputs.items():
        run = proof.run.outputs.get(name)
        shown = (
            (measured_text(replace(run, worst=None)), slice_text(run), classes_text(run))
            if run
            else ("not run", "", "")
        )
        table.add_row(name, *shown, brief_text(one))
    out.print(table)
    runtime = f", in {proof.runtime}" if proof.runtime else ""
    out.print(f"Measured on {proof.written.samples} samples{runtime}.")
