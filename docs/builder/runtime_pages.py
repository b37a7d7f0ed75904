"""Pages of what runs a model: targets, and how each operator is quantized for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields

from aligned_fields import fields_of
from markdown_parts import NONE, anchored, code, codes, in_words, prose, table

from quark_onnx.core import operators
from quark_onnx.core.operators import Op
from quark_onnx.core.settings.targets import PAIRS, TARGETS, Target

_SHOWN_OTHERWISE = ("name", "title", "meaning", "ops")


def target_page() -> str:
    """Every target, by the fields of its row."""
    meaning = fields_of(inspect.getdoc(Target) or "")
    names = [entry.name for entry in fields(Target) if entry.name not in _SHOWN_OTHERWISE]
    rows = [
        (f"{anchored(name)}<br>{prose(meaning[name])}", *(_value(getattr(row, name)) for row in TARGETS.values()))
        for name in names
    ]
    which = [(code(row.name), prose(row.meaning)) for row in TARGETS.values()]
    pairs = [(code(name), prose(text)) for name, text in PAIRS.items()]
    return f"""# Targets

`QuantizationConfig.target` says what runs the model. A target decides what the configuration leaves open, and refuses
what it cannot run. [How to run models there](../targets.md), and what was run; [in words](../calibration.md#targets);
[operators by target](operators.md).

{table(("target", "what it is"), which)}

## What each needs

{table(("what", *map(code, TARGETS)), rows)}

## Pairs of weights

The field `weight_pairs`, for targets whose kernels add two products in 16 bits; [why](../processors.md).

{table(("value", "meaning"), pairs)}
"""


def _value(found: object) -> str:
    if isinstance(found, bool) or found is None:
        return "yes" if found else NONE
    return codes(found) if isinstance(found, tuple) else code(str(found))


def operator_page() -> str:
    """Every operator of every table, and what its kind means."""
    kinds = [(code(kind), prose(text)) for kind, text in fields_of(operators.__doc__ or "").items()]
    tables: dict[int, tuple[Mapping[str, Op], list[str]]] = {}
    for row in TARGETS.values():
        tables.setdefault(id(row.ops), (row.ops, []))[1].append(row.name)
    parts = [f"## {', '.join(names)}\n\n{_operators(ops)}\n" for ops, names in tables.values()]
    return f"""# Operators

How each operator is quantized, by target. What is not here stays float, and so does what would gain nothing:
`quark-onnx inspect model.onnx` says it of each node of a model, with the reason.

{table(("kind", "meaning"), kinds)}

""" + "\n\n".join(parts)


def _operators(ops: Mapping[str, Op]) -> str:
    kernels = any(op.kernels for op in ops.values())
    rows = [(code(name), *([_kernels(op)] if kernels else []), _how(op)) for name, op in sorted(ops.items())]
    return table(("operator", *(["integer kernels"] if kernels else []), "how"), rows)


def _kernels(op: Op) -> str:
    return ", ".join(f"<code>{in_words(name)}</code>" for name in op.kernels) or NONE


def _scales(op: Op) -> str:
    if op.kind not in ("layer", "matmul"):
        return ""
    several = f", or one per channel (axis {op.weight_axis})" if op.per_channel else ""
    return f"one scale of the weight{several}"


def _how(op: Op) -> str:
    """The kind, and what is special about a row."""
    found = [
        code(op.kind),
        _scales(op),
        f"activations: input {', '.join(map(str, op.data))}" if op.data is not None and len(op.data) > 1 else "",
        f"constant inputs {', '.join(map(str, op.exact))} must stay as they are" if op.exact else "",
        f"output {op.range[0]:g} … {op.range[1]:g}" if op.range else "",
        f"16 bits only with output {op.wide_range[0]:g} … {op.wide_range[1]:g}" if op.wide_range else "",
        f"takes in {', '.join(op.takes)}" if op.takes else "",
        "takes in the Add of its bias" if op.adds_bias else "",
        "" if op.fuses else "no integer kernel of its own",
        "can return floats" if op.float_output else "",
        "stays float32 in a float16 model" if op.needs_float else "",
    ]
    return "; ".join(filter(None, found))
