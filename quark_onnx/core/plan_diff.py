"""The differences of two plans, line by line."""

from __future__ import annotations

from typing import Any

import numpy as np

from quark_onnx.core.plan import ARRAYS, Plan, QParams


def diff(old: Plan, new: Plan) -> list[str]:
    """The differences of two plans, one line each, bodies included; empty when they decide the same."""
    lines = [] if old.model == new.model else [f"model: {old.model} → {new.model}"]
    for kind in ("sites", "nodes", "notes", "remarks"):
        before, after = getattr(old, kind), getattr(new, kind)
        lines += [f"− {kind} {name}" for name in before if name not in after]
        lines += [f"+ {kind} {name}{_told(after[name])}" for name in after if name not in before]
        lines += [f"~ {kind} {n}: {before[n]} → {after[n]}" for n in before if n in after and before[n] != after[n]]
    for kind in ARRAYS:
        before, after = getattr(old, kind), getattr(new, kind)
        lines += [f"− {kind} {name}: {_show(before[name])}" for name in before if name not in after]
        for name, value in after.items():
            if name not in before:
                lines.append(f"+ {kind} {name}: {_show(value)}")
            elif not _same(before[name], value):
                lines.append(f"~ {kind} {name}: {_show(before[name])} → {_show(value)}")
    lines += [f"− bodies {key}" for key in old.bodies if key not in new.bodies]
    lines += [f"+ bodies {key}" for key in new.bodies if key not in old.bodies]
    pairs = [(key, plan, new.bodies[key]) for key, plan in old.bodies.items() if key in new.bodies]
    return lines + [f"{key}: {line}" for key, before, after in pairs for line in diff(before, after)]


def _told(value: Any) -> str:
    """A reason or remark, which is the news of its line."""
    return f": {value}" if isinstance(value, str) else ""


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a.same(b))


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.size} values {value.min(initial=0):.6g}..{value.max(initial=0):.6g}"
    if value.scale.ndim:
        return f"{value.scale.size} scales {value.scale.min():.6g}..{value.scale.max():.6g}"
    return f"scale {float(value.scale):.6g}" + (
        f" zero_point {int(value.zero_point)}" if isinstance(value, QParams) else ""
    )
