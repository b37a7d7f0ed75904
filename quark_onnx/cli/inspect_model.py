"""`quark-onnx inspect`: what would be quantized, and why the rest would not; of a quantized model, what is exact."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from quark_onnx.cli.certificate_text import certificate_table
from quark_onnx.cli.console import lines, out, print_json, progress
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ConfigFlags, ShowFlags, show_flag
from quark_onnx.cli.tables import counted, facts, new_table
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.proof_for_target import certified
from quark_onnx.engine.runner import input_specs
from quark_onnx.engine.runtimes.known import own_runtime, runtime_of
from quark_onnx.engine.runtimes.runtime import Missing
from quark_onnx.engine.saturation_certificate import is_quantized, summary
from quark_onnx.graph import Model, io
from quark_onnx.graph.view import shape
from quark_onnx.job import Job
from quark_onnx.opened_job import open_job
from quark_onnx.stages.place.idle_operators import BEHIND, IN_FRONT, without_output

NAMED = 3
"""Layers that a line names, at most."""


@dataclass(frozen=True)
class Row:
    """One node after preparing: the reason why it stays float, empty when it is quantized."""

    node: str
    op_type: str
    reason: str


@spread
def inspect_command(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)],
    how: ConfigFlags,
    nodes: Annotated[bool, show_flag("--nodes", help="A row for every node.")] = False,
    show: ShowFlags,
) -> None:
    """Show what would be quantized in a model, and why the rest would not.

    Needs no data. Nodes are counted after preparing, which folds BatchNormalization and constants into neighbours. Of a
    model that is quantized, by any tool, it shows which nodes compute the same on every x64 processor.

    - `quark-onnx inspect model.onnx`
    - `quark-onnx inspect model.onnx --exclude 'head/*' --nodes`
    - `quark-onnx inspect int8.onnx`
    - `quark-onnx inspect int8.onnx --target openvino`
    """
    config = how.build()
    loaded = open_model(model, how.custom_ops or ())
    if is_quantized(loaded):
        if not how.only_of_the_model:
            raise ConfigError(f"{model} is quantized already: name the float model, or leave the flags out")
        _certified(model, loaded, how.runs_on, nodes, show)
        return
    with progress(quiet=show.quiet) as tell:
        tell("prepare", 0, None)
        job = open_job(model, config)
    nodes_of = [(node, part.sites.notes) for part in job.parts() for node in part.prepared.graph]
    rows = [Row(n.name or "", n.op_type, notes.get(n.name or "", "")) for n, notes in nodes_of]
    if show.json:
        document = {"model": str(model), "config": config, "weights": io.weight_bytes(job.model)}
        document |= {"before": _before(job), "rewrites": job.rewrites}
        print_json(document | {"idle": _idle(rows), "float_outputs": _float_outputs(job), "nodes": rows})
    elif not show.quiet:
        out.print(_nodes(rows) if nodes else _operators(job, rows))
        out.print(facts(_overview(job, rows)))


def _certified(path: Path, model: Model, target: Target, nodes: bool, show: ShowFlags) -> None:
    """What is certified of a quantized model, by the runtime of the target."""
    found, runtime = certified(target, model), own_runtime(target)
    asked = "" if runtime is None else runtime.full_title
    if show.json:
        document = {"model": str(path), "weights": io.weight_bytes(model), "target": target.name, "runtime": asked}
        print_json(document | {"certificates": found})
    elif not show.quiet:
        table = certificate_table(found, every=nodes)
        if table.row_count:
            out.print(table)
        proved = summary(found) or ("no node runs on an integer kernel" if asked else _not_known(target))
        out.print(facts({**_interface(model), "Asked": asked, "Processors": proved}))


def _not_known(target: Target) -> str:
    """Why nothing was asked, and the way out, where there is one."""
    runtime = runtime_of(target)
    return f"not known: {runtime.told if isinstance(runtime, Missing) else f'nothing here runs {target.title}'}"


def _before(job: Job) -> Counter[str]:
    return Counter(node.op_type for node in job.model.graph)


def _overview(job: Job, rows: list[Row]) -> dict[str, str | Text]:
    return {
        **_interface(job.model),
        "Rewritten by": counted(job.rewrites),
        "Quantized": f"{sum(not row.reason for row in rows)} of {len(rows)} nodes",
        "Stay float": lines(f"{_operators_text(ops)}: {reason}" for reason, ops in _idle(rows).items()),
        "Float outputs": _layers_text(_float_outputs(job)),
    }


def _idle(rows: list[Row]) -> dict[str, Counter[str]]:
    """Operators that integers would buy nothing, by the reason."""
    found = {why: Counter(row.op_type for row in rows if row.reason == why) for why in (BEHIND, IN_FRONT)}
    return {why: ops for why, ops in found.items() if ops}


def _operators_text(ops: Counter[str]) -> str:
    return f"{ops.total()} operator{'s' * (ops.total() != 1)} without a weight ({counted(ops)})"


def _float_outputs(job: Job) -> list[str]:
    """Layers on integers that give floats, because somebody behind them reads these."""
    if not job.config.observes:
        return []
    found = (without_output(part.prepared.graph, part.sites.nodes, (), job.config.row.ops) for part in job.parts())
    return [node.name or "" for nodes in found for node in nodes]


def _layers_text(names: list[str]) -> str:
    if not names:
        return ""
    more = ", …" if len(names) > NAMED else ""
    return f"of {len(names)} Gemm and MatMul, as floats are read behind them: {', '.join(names[:NAMED])}{more}"


def _interface(model: Model) -> dict[str, str | Text]:
    inputs = [f"{spec.name}  {spec.dtype} {_dims(spec.shape)}" for spec in input_specs(model)]
    outputs = [f"{value.name}  {_dims(shape(value))}" for value in model.graph.outputs]
    weights = decimal(io.weight_bytes(model))
    return {"Inputs": lines(inputs), "Outputs": lines(outputs), "Weights": weights}


def _dims(dims: tuple[int | None, ...] | None) -> str:
    return "of unknown rank" if dims is None else "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"


def _operators(job: Job, rows: list[Row]) -> Table:
    """A row per operator type, in order of first appearance."""
    before, after = _before(job), Counter(row.op_type for row in rows)
    table = new_table("Operator", "In model", "Prepared", "Quantized", "Float", "Why", numbers=(1, 2, 3, 4))
    for op_type in dict.fromkeys((*before, *after)):
        reasons = Counter(row.reason for row in rows if row.op_type == op_type and row.reason)
        counts = (before[op_type], after[op_type], after[op_type] - reasons.total(), reasons.total())
        table.add_row(
            op_type, *(str(count or "·") for count in counts), _why(op_type, counts[2], reasons, job.config.row)
        )
    return table


def _why(op_type: str, quantized: int, reasons: Counter[str], target: Target) -> Text:
    found = [reason if len(reasons) == 1 else f"{count} × {reason}" for reason, count in reasons.most_common()]
    if quantized and not target.ops[op_type].fuses:
        found.append("quantized, yet computed in float: onnxruntime's CPU provider has no integer kernel")
    return lines(found)


def _nodes(rows: list[Row]) -> Table:
    table = new_table("Node", "Operator", "Quantized", "Why not")
    for row in rows:
        table.add_row(row.node, row.op_type, "no" if row.reason else "yes", row.reason)
    return table
