"""What a notebook shows of a result, part by part, from what is in it: nothing is measured to show it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from quark_onnx.core.records import GOOD, LayerRecord, Measured, TrainedPoint, Training, least_alike
from quark_onnx.core.shown.card import GOOD as SOUND
from quark_onnx.core.shown.card import LOOK, Level, Tile
from quark_onnx.core.shown.charts import Bar, bars, strip
from quark_onnx.core.shown.figures import count, number, percent, share, size
from quark_onnx.core.shown.markup import Html, joined, tag
from quark_onnx.core.shown.tables import ROWS, reasons_table
from quark_onnx.engine.ledger_rows import Row, Status
from quark_onnx.engine.result_wording import agreement_text, decibels_text, grade, kept_text, training_text, worth_text

TOP_DB = 60.0
"""dB of a full bar; what has more is as long."""

LEVELS: Mapping[Status, Level] = {"integer": "good", "absorbed": "good", "float": "fair"}


def level_of(db: float | None) -> Level:
    """How good a ratio is."""
    found: Mapping[str, Level] = {"good": "good", "fair": "fair", "poor": "poor"}
    return found.get(grade(db), "")


def verdict(
    outputs: Mapping[str, Measured], warnings: Sequence[str], written: Mapping[str, Measured] | None = None
) -> tuple[str, str, Level]:
    """In two words, in a sentence, and as a level. What was not measured is not called good, nor what was not run.

    written: the outputs with the arithmetic that the file says.
    """
    worst = worst_output(outputs)
    told = [count(len(warnings), "warning")] if warnings else []
    if worst is None and (as_written := worst_output(written or {})) is not None:
        name, one = as_written
        return LOOK, "; ".join([f"nothing was run; as it is written, output {name!r} {kept_text(one)}", *told]), "poor"
    if worst is None:
        return LOOK, "; ".join(["nothing was measured: whether accuracy is kept is not known", *told]), "poor"
    name, one = worst
    db = -math.inf if one.db is None else one.db
    of = f", the worst of {len(outputs)}" if len(outputs) > 1 else ""
    known = "" if db >= GOOD else f", which is {grade(db)}"
    sentence = "; ".join([f"output {name!r} {kept_text(one)}{known}{of}", *told])
    good = db >= GOOD and not warnings
    return (SOUND, sentence, "good") if good else (LOOK, sentence, "poor" if level_of(db) == "poor" else "fair")


def worst_output(outputs: Mapping[str, Measured]) -> tuple[str, Measured] | None:
    """The output that is worth the least; None where none was measured."""
    known = [(name, one) for name, one in outputs.items() if one.db is not None]
    return min(known, key=lambda entry: entry[1].db or 0.0, default=None)


def accuracy_tiles(outputs: Mapping[str, Measured], written: Mapping[str, Measured] | None = None) -> list[Tile]:
    """What the worst output is worth, and how far classes agree; as written, where that alone is known."""
    worst, classes = worst_output(outputs), least_alike(outputs)
    if worst is None and (as_written := worst_output(written or {})) is not None:
        return [Tile("Output SQNR", "not run", f"as written {worth_text(as_written[1])}: {as_written[0]}")]
    if worst is None:
        return [Tile("Output SQNR", "not measured")]
    name, one = worst
    tiles = [Tile("Output SQNR", worth_text(one), f"{grade(one.db)}: {name}", level_of(one.db))]
    if classes.kl is not None and classes.agreement is not None:
        tiles.append(Tile("KL(float ‖ quantized)", number(classes.kl), agreement_text(classes.agreement)))
    return tiles


def size_tile(stored: Mapping[str, int]) -> Tile:
    """The quantized model as it is stored, and its part of the float one."""
    after = stored.get("quantized", 0)
    return Tile("Size", size(after), share(after, stored.get("float", 0)))


def integers_tile(ledger: Sequence[Row]) -> Tile:
    """How many nodes run on integers, or are taken in by one that does."""
    floats = sum(row.status == "float" for row in ledger)
    return Tile(
        "On integers", f"{len(ledger) - floats:,} of {len(ledger):,}", "nodes" + f", {floats:,} in float" * bool(floats)
    )


def nodes_strip(ledger: Sequence[Row]) -> Html:
    """All nodes in order of the graph: integers, or float."""
    if not ledger:
        return Html()
    note = "Nodes in order of the graph: green runs on integers, amber and low in float"
    return joined(
        [tag("p", note, class_="quiet"), strip([LEVELS[row.status] for row in ledger], [row.node for row in ledger])]
    )


def operators_chart(ledger: Sequence[Row]) -> Html:
    """How many nodes of each operator run on integers: the most float ones first."""
    total, floats = Counter(row.op_type for row in ledger), Counter(r.op_type for r in ledger if r.status == "float")
    order = sorted(total, key=lambda kind: (-floats[kind], -total[kind]))
    rows = [_operator(kind, total[kind] - floats[kind], total[kind]) for kind in order[:ROWS]]
    return bars("Operators: nodes on integers", rows, len(order))


def _operator(kind: str, integers: int, total: int) -> Bar:
    return Bar(kind, integers / total, f"{integers:,} of {total:,}", "good")


def float_table(ledger: Sequence[Row]) -> Html:
    """What stays float, and why: reasons with most nodes first."""
    floats = {row.node: f"{row.op_type}: {row.reason}" for row in ledger if row.status == "float"}
    return reasons_table("What stays float", floats)


def tuned_chart(records: Sequence[LayerRecord]) -> Html:
    """What tuning left of the error of each layer: those that gained least first."""
    caption = "Tuned layers: what is left of their error, on samples held out of tuning; those that gained least first"
    left = {record.node: _left(record) for record in records}
    worst = sorted(left, key=lambda node: -left[node])
    return bars(caption, [Bar(node, left[node], percent(left[node])) for node in worst[:ROWS]], len(worst))


def training_chart(found: Training | None) -> Html:
    """The loss on the held-out samples, evenly over the training."""
    if found is None:
        return Html()
    curve = found.curve
    picked = sorted({round(k * (len(curve) - 1) / (ROWS - 1)) for k in range(ROWS)})
    top = max((point.held for point in curve if math.isfinite(point.held)), default=0.0) or 1.0
    rows = [Bar(f"step {curve[k].step:,}", curve[k].held / top, _point(curve[k])) for k in picked]
    return bars(f"Training: {training_text(found)}", rows, len(rows))


def _point(point: TrainedPoint) -> str:
    return number(point.held) + ("" if point.metric is None else f", {percent(point.metric)} right")


def _left(record: LayerRecord) -> float:
    """Part of the error before."""
    known = record.accepted and record.held_before > 0
    return record.held_after / record.held_before if known else 1.0


def decibels_chart(caption: str, ratios: Mapping[str, float]) -> Html:
    """dB by layer, the worst first."""
    worst = sorted(ratios, key=lambda name: (not math.isnan(ratios[name]), ratios[name]))
    return bars(caption, [_decibels(name, ratios[name]) for name in worst[:ROWS]], len(worst))


def _decibels(name: str, ratio: float) -> Bar:
    share = 0.0 if math.isnan(ratio) else ratio / TOP_DB
    return Bar(name, share, decibels_text(ratio), level_of(ratio))
