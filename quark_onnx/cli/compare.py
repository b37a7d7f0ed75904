"""`quark-onnx compare`: a float model against a quantized one of any tool, on the same data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from quark_onnx.cli.console import out, print_json, progress, warn
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import DataFlags, ShowFlags, show_flag
from quark_onnx.cli.matching_tensors import match
from quark_onnx.cli.tables import db_text, layer_table, new_table
from quark_onnx.core.errors import ModelError, nearest
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import compare
from quark_onnx.engine.runner import Runner, fit, input_specs
from quark_onnx.engine.saturation_certificate import certify, summary
from quark_onnx.graph import Model, io
from quark_onnx.job import Progress
from quark_onnx.numerics.metrics import Sqnr


@dataclass
class Agreement:
    """How far one output of the two models agrees, over all samples.

    A matrix has a winner in each row: the rows where both have the same one are counted (top-1). Of an output that is
    not float, equal elements are counted.
    """

    ratio: Sqnr = field(default_factory=Sqnr)
    is_float: bool = True
    equal: int = 0
    counted: int = 0

    def add(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Count one pair of arrays of equal shape."""
        self.is_float = x.dtype.kind == "f"
        if self.is_float:
            self.ratio.add(x, y)
            if x.ndim == 2 and x.shape[1] > 1:
                self._count(x.argmax(1), y.argmax(1))
        else:
            self._count(x, y)

    def _count(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        self.equal += int((x == y).sum())
        self.counted += x.size

    @property
    def share(self) -> float | None:
        """Part that agrees; None where nothing could be counted."""
        return self.equal / self.counted if self.counted else None

    def to_dict(self) -> dict[str, float | None]:
        """Plain values, ready for JSON."""
        kind = "top1_agreement" if self.is_float else "equal"
        return {"sqnr": self.ratio.db if self.is_float else None, kind: self.share}


@spread
def compare_command(
    *,
    float_model: Annotated[Path, typer.Argument(metavar="FLOAT", help="The float model.", show_default=False)],
    quantized_model: Annotated[Path, typer.Argument(metavar="QUANT", help="The quantized model.", show_default=False)],
    data: DataFlags,
    layers: Annotated[bool, show_flag("--layers", help="Also the SQNR of every layer, worst first.")] = False,
    show: ShowFlags,
) -> None:
    """Measure how far a quantized model is from the float one on your data.

    Works for a QDQ model of any tool, if inputs and outputs have the names of the float model's. Outputs come from
    onnxruntime with all optimizations, as in production; layers are measured with the arithmetic as it is written.

    - `quark-onnx compare model.onnx int8.onnx --data samples/`
    - `quark-onnx compare model.onnx int8.onnx --data samples/ --samples 100 --layers`
    """
    model, quantized = io.load(float_model), io.load(quantized_model)
    check_interface(model, quantized)
    feeds = data.open(input_specs(model))
    with progress(quiet=show.quiet) as tell:
        outputs, samples = agreement(model, quantized, feeds, tell)
        sqnr = {}
        if layers:
            tell("layers", 0, None)
            sqnr = layer_ratios(model, quantized, feeds)
    warn(feeds.warnings)
    proved = certify(quantized)
    if show.json:
        document = {"float": str(float_model), "quantized": str(quantized_model), "samples": samples}
        document["outputs"] = {name: entry.to_dict() for name, entry in outputs.items()}
        document["certificates"] = proved
        print_json(document | ({"layers": sqnr} if layers else {}))
    elif not show.quiet:
        if layers:
            out.print(layer_table(sqnr) if sqnr else "No layer of the quantized model could be matched.")
        _print(outputs, samples)
        if proved:
            out.print(f"Processors: {summary(proved)}.", soft_wrap=True)


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


def agreement(
    model: Model, quantized: Model, feeds: Iterable[Feed], tell: Progress
) -> tuple[dict[str, Agreement], int]:
    """The agreement of every output of the float model, and the number of samples.

    Raises:
        ModelError: an output has another shape or type in the quantized model.
    """
    runner = Runner(model)
    other = Runner(quantized, runner.outputs)
    read = {value.name for value in quantized.graph.inputs}
    found = {name: Agreement() for name in runner.outputs}
    samples = 0
    for samples, feed in enumerate(feeds, start=1):
        part = {name: array for name, array in feed.items() if name in read}
        for name, x, y in zip(runner.outputs, runner(feed), other(fit(part, quantized)), strict=True):
            if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or x.shape != y.shape:
                raise ModelError(
                    f"output {name!r} cannot be compared: {_kind(x)} in one model, {_kind(y)} in the other"
                )
            found[name].add(x, y)
        tell("compare", samples, None)
    return found, samples


def layer_ratios(model: Model, quantized: Model, feeds: Iterable[Feed]) -> dict[str, float]:
    """SQNR in dB of every quantized tensor that has a counterpart in the float model."""
    pairs, base = match(model, quantized)
    return compare(base, quantized, feeds, pairs, optimized=False) if pairs else {}


def _kind(value: object) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _print(outputs: dict[str, Agreement], samples: int) -> None:
    table = new_table("Output", "SQNR", "Agreement", "", numbers=(1, 2))
    for name, entry in outputs.items():
        what = "" if entry.share is None else "same top-1" if entry.is_float else "equal values"
        share = "" if entry.share is None else f"{entry.share:.2%}"
        table.add_row(name, db_text(entry.ratio.db) if entry.is_float else "", share, what)
    out.print(table)
    out.print(f"Measured on {samples} samples.")
