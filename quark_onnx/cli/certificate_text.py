"""Certificates of integer nodes as a table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from quark_onnx.cli.tables import MANY, new_table
from quark_onnx.engine.saturation_certificate import Certificate


def certificate_table(found: Mapping[str, Certificate], *, every: bool) -> Table:
    """A row for every node; else for those that are not exact on every processor, the first few."""
    shown = [entry for entry in found.items() if every or entry[1].verdict != "exact"]
    table = new_table("Node", "On x64", "Why")
    for name, certificate in shown if every else shown[:MANY]:
        table.add_row(name, certificate.verdict, certificate.reason)
    if not every and len(shown) > MANY:
        table.add_row(f"… and {len(shown) - MANY} more: see --nodes", "", "")
    return table
