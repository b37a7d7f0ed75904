"""`quark-onnx demo`: what this tool does, on a model that comes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.filesize import decimal

from quark_onnx.cli.console import out, print_json, progress
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ShowFlags, output_option
from quark_onnx.cli.tables import facts, new_table
from quark_onnx.demo.run import Demo, run
from quark_onnx.engine.result_wording import decibels_text

OUTPUT = Path("digits_int8.onnx")


@spread
def demo_command(
    *,
    output: Annotated[
        Path, output_option(metavar="FILE", help=f"The quantized model to write (default: {OUTPUT}).")
    ] = OUTPUT,
    show: ShowFlags,
) -> None:
    """Quantize a small model that comes with this package, and measure both.

    A classifier of handwritten digits: accuracy, file size and latency, float against INT8, as it is rounded and
    fine-tuned. Takes seconds and downloads nothing, but needs scikit-learn: `pip install 'quark-onnx[demo]'`.

    - `quark-onnx demo`
    """
    with progress(quiet=show.quiet) as tell:
        demo = run(output, tell)
    if show.json:
        print_json(demo)
    elif not show.quiet:
        _print(demo)


def _print(demo: Demo) -> None:
    out.print(f"Handwritten digits, calibrated on {demo.samples} training images, tested on {demo.images} others:")
    table = new_table("Model", "Accuracy", "SQNR", "File", "Latency", "Integer", numbers=range(1, 6))
    for name, entry in demo.models.items():
        accuracy = f"{entry.right / demo.images:.2%} {entry.right}/{demo.images}"
        ratio = "" if entry.sqnr is None else decibels_text(entry.sqnr)
        nodes = "" if entry.fused is None else f"{entry.fused[0]} of {entry.fused[1]}"
        table.add_row(name, accuracy, ratio, decimal(entry.bytes), f"{entry.milliseconds * 1000:.1f} µs", nodes)
    out.print(table)
    rows = {
        "Accuracy": "an answer more or less is chance",
        "SQNR": "of the output on the test images, against the float model",
        "AdaRound": "one scale per tensor, weights fine-tuned on the same images",
        "Latency": "one image, one thread, median; taken in turn with the float model",
        "Integer": "layers that onnxruntime runs on integers, or merges into one that is",
        "Wrote": f"{demo.output}  (per channel: what is made without a preset)",
    }
    out.print(facts(rows))
