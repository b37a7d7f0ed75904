"""Tables and figures as the commands print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from quark_onnx.cli.console import lines
from quark_onnx.core.records import Measured
from quark_onnx.engine.result_wording import brief_text, classes_text, decibels_text, measured_text

MANY = 8
"""Lines after which a list is cut."""


def new_table(*headers: str, numbers: Sequence[int] = ()) -> Table:
    """An empty table with a rule under its headers; the columns in `numbers` are flush right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        right = index in numbers
        table.add_column(header, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def facts(rows: Mapping[str, str | Text]) -> Table:
    """Two columns, what and how much; rows without a value are left out. Several lines are a `Text`."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def smaller_text(before: int, after: int) -> str:
    """Two sizes and their ratio."""
    ratio = f" ({before / after:.1f} times smaller)" if 0 < after < before else ""
    return f"{decimal(before)} → {decimal(after)}{ratio}"


def counted(counts: Mapping[str, int]) -> str:
    """`9 Conv, 1 Gemm`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def fused_table(fused: Mapping[str, tuple[int, int]]) -> Table:
    """How many nodes of each operator type run on integers."""
    table = new_table("Operator", "On integers", "Of", numbers=(1, 2))
    for op_type, (done, count) in fused.items():
        table.add_row(op_type, str(done), str(count))
    return table


def float_table(reasons: Iterable[tuple[str, str, str]]) -> Table:
    """A table of (node, operator, reason): nodes that stay float for one reason share a row."""
    names: dict[tuple[str, str], list[str]] = {}
    for node, op_type, reason in reasons:
        names.setdefault((op_type, reason), []).append(node)
    table = new_table("Operator", "Float", "Why", "First of them", numbers=(1,))
    for (op_type, reason), nodes in sorted(names.items(), key=lambda item: -len(item[1])):
        table.add_row(op_type, str(len(nodes)), reason, nodes[0])
    return table


def layer_table(layers: Mapping[str, float]) -> Table:
    """SQNR by tensor, the worst first."""
    table = new_table("Tensor", "SQNR", numbers=(1,))
    for name, value in sorted(layers.items(), key=lambda item: item[1]):
        table.add_row(name, decibels_text(value))
    return table


def output_lines(outputs: Mapping[str, Measured], written: Mapping[str, Measured]) -> Text:
    """What each output keeps, a line each; and what it is worth as written."""
    found = []
    for name, one in outputs.items():
        worth = f"as written {brief_text(written[name])}" if name in written else ""
        also = ", ".join(text for text in (worth, classes_text(one)) if text)
        found.append(f"{measured_text(one)}  {name}" + (f"  ({also})" if also else ""))
    if not outputs:
        found = [f"not run; as written {brief_text(one)}  {name}" for name, one in written.items()]
    return lines(found)


def remarks_text(remarks: Mapping[str, str]) -> Text:
    """Remarks by tensor, or of the whole model ("*"), a line each: the first few, and how many more there are."""
    return first_lines([remark if tensor == "*" else f"{tensor}: {remark}" for tensor, remark in remarks.items()])


def first_lines(texts: Sequence[str], where: str = "--json") -> Text:
    """The first few, a line each, and how many more there are and where."""
    more = len(texts) - MANY
    return lines([*texts[:MANY], f"… and {more} more: see {where}"] if more > 0 else texts)
