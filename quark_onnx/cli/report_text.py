"""The report of a quantization as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.filesize import decimal
from rich.text import Text

from quark_onnx.cli.console import out
from quark_onnx.cli.tables import facts, first_lines, float_table, fused_table, output_lines, remarks_text, smaller_text
from quark_onnx.cli.tuning_text import tuning_rows, worst_table
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import PROTECTED, MixRecord, ProtectedRegion, SmoothRecord
from quark_onnx.engine.protection_wording import region_text
from quark_onnx.engine.result_wording import training_text
from quark_onnx.engine.saturation_certificate import summary
from quark_onnx.engine.smoothing_wording import smoothed_lines
from quark_onnx.result import Probed, Report


def print_report(report: Report, output: Path, resumed: Plan | None = None, page: Path | None = None) -> None:
    """What became of the model, and where it and its page are; `resumed` is the plan that it went on from."""
    out.print(fused_table(report.fused))
    floats = [row for row in report.ledger if row.status == "float"]
    if floats:
        out.print(float_table((row.node, row.op_type, row.reason) for row in floats))
    if report.tuned and report.correction is None:
        out.print(worst_table(report.tuned))
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items() if seconds >= 0.05)
    rows = {
        "Output SQNR": output_lines(report.outputs, report.written),
        "Processors": summary(report.certificates),
        "Weights": smaller_text(report.bytes["float"], report.bytes["quantized"]),
        "Samples" if resumed else "Calibrated on": f"{report.samples} samples" if report.samples else "",
        "Judged on": judged_text(report.probes, report.judged),
        "Run in": report.runtime,
        "Positions": report.positions,
        "Resumed": f"from a plan with {_tuned_weights(len(resumed.codes))}" if resumed else "",
        **tuning_rows(report.tuned, report.untuned, report.seconds.get("tune", 0.0), report.correction),
        "Training": "" if report.trained is None else training_text(report.trained),
        "Smoothed": smoothed_text(report.smoothed),
        "Mixed precision": _mixed(report.mixed),
        "Protected": protected_text(report.protected) or _kept(report.float_nodes),
        "Remarks": remarks_text(report.remarks),
        "Seconds": f"{sum(report.seconds.values()):.1f}" + (f"  ({stages})" if stages else ""),
        "Wrote": f"{output}  ({decimal(report.stored['quantized'])}, float {decimal(report.stored['float'])})",
        "Report": "" if page is None else str(page),
    }
    out.print(facts(rows))


def judged_text(probes: Probed, judged: int) -> str:
    """Which samples the figures are of."""
    others = "" if probes == "held out" else ", as far as this run goes"
    return {"": "", "calibration": "the same samples"}.get(probes, f"{judged} others{others}")


def protected_text(regions: Sequence[ProtectedRegion]) -> Text:
    """A line for each region: the first few, and how many more there are."""
    return first_lines([*map(region_text, regions)])


def smoothed_text(records: Sequence[SmoothRecord]) -> Text:
    """How many activations were smoothed, and why others were not."""
    return first_lines(smoothed_lines(records))


def _kept(reasons: Mapping[str, str]) -> str:
    """What the plan that was applied, or that a run went on from, had protected."""
    count = sum(reason.startswith(PROTECTED) for reason in reasons.values())
    return f"{count} {'nodes' if count > 1 else 'node'} float, as the plan says" if count else ""


def _mixed(records: Sequence[MixRecord]) -> str:
    """How many layers changed their type."""
    moved = sum(record.moved for record in records)
    return f"{moved} of {len(records)} layers moved; --json has the score of each" if records else ""


def _tuned_weights(count: int) -> str:
    return "1 tuned weight" if count == 1 else f"{count} tuned weights"
