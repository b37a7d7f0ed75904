"""What fine-tuning or bias correction did, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from quark_onnx.cli.console import lines
from quark_onnx.cli.tables import new_table
from quark_onnx.core.records import Correction, LayerRecord
from quark_onnx.engine.result_wording import STOPPED, correction_text

WORST = 5
"""Layers that are listed."""

BECAME = {"tuned": "tuned", "nearest": "scale and bias only", "untuned": "bias only", "raw": "left as is"}
"""What a layer became, by the choice in its record."""


def interrupted(warnings: Sequence[str]) -> bool:
    """Whether fine-tuning was stopped, by the warnings of a report."""
    return any(warning.startswith(STOPPED) for warning in warnings)


def tuning_rows(
    records: Sequence[LayerRecord], untuned: Mapping[str, str], seconds: float, correction: Correction | None = None
) -> dict[str, str | Text]:
    """Facts: how many layers became what, in how many seconds, and what could not be worked on."""
    if correction is not None:
        return {"Bias correction": correction_text(correction) + (f"; {seconds:.1f} s" if correction.samples else "")}
    counts = Counter(_became(record) for record in records)
    parts = [f"{counts[text]} {text}" for text in BECAME.values() if counts[text]]
    reasons = Counter(reason for reason in untuned.values() if not reason.startswith("not quantized"))
    name = "Fine-tuning" if any(record.looked_for for record in records) else "Bias correction"
    return {
        name: f"{_layers(counts.total())}: {', '.join(parts)}; {seconds:.1f} s" if records else "",
        "Not tuned": lines(f"{_layers(count)}: {reason}" for reason, count in reasons.most_common()),
    }


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _became(record: LayerRecord) -> str:
    return BECAME[record.choice if record.accepted else "raw"]


def worst_table(records: Sequence[LayerRecord]) -> Table:
    """The layers that gained least on the samples held out of tuning."""
    table = new_table("Gained least", "Operator", "Became", "Error on held-out samples", numbers=(3,))
    for record in sorted(records, key=_change, reverse=True)[:WORST]:
        table.add_row(record.node, record.op_type, _became(record), f"{_change(record):+.1%}")
    return table


def _change(record: LayerRecord) -> float:
    """Part by which the error changed; negative is better."""
    if not record.accepted or not record.held_before:
        return 0.0
    return record.held_after / record.held_before - 1
