"""Chains of operators that run as one (`supergroups`): longest first, and no operator is in two."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from quark_onnx.graph import Value
from quark_onnx.graph.view import is_constant, rank, shape
from quark_onnx.stages.simulated_placement.units import Circuit, Unit

CUBE = 5
"""Axes of what a convolution over three dimensions reads."""


def chains(
    circuit: Circuit, patterns: Iterable[Sequence[str]], barred: Collection[Unit] = ()
) -> list[tuple[Unit, ...]]:
    """The chains that the patterns find. Each operator but the last has one reader; `barred` ones begin none."""
    found: list[tuple[Unit, ...]] = []
    taken: set[Unit] = set()
    for pattern in sorted(patterns, key=len, reverse=True):
        for unit in circuit.units:
            chain = None if unit in barred or runs_alone(unit) else _chain(circuit, unit, pattern)
            if chain is not None and taken.isdisjoint(chain):
                found.append(chain)
                taken.update(chain)
    return found


def _chain(circuit: Circuit, first: Unit, pattern: Sequence[str]) -> tuple[Unit, ...] | None:
    if first.type != pattern[0]:
        return None
    chain = [first]
    for op_type in pattern[1:]:
        readers = circuit.behind(chain[-1])
        if len(readers) != 1 or readers[0].type != op_type or readers[0].nodes[0].graph is not circuit.graph:
            return None
        chain.append(readers[0])
    return tuple(chain)


def runs_alone(unit: Unit) -> bool:
    """Whether the target fuses nothing behind it: convolutions over three dimensions, and those channel by channel."""
    if unit.type not in ("Conv", "ConvTranspose") or len(unit.inputs) < 2:
        return False
    data, weight = unit.inputs[:2]
    if CUBE in (rank(data), rank(weight)):
        return True
    groups = unit.nodes[0].attributes.get_int("group", 1)
    dims = shape(weight) if is_constant(weight) else None
    if groups == 1 or dims is None:
        return False
    return dims[1] == 1 if unit.type == "Conv" else dims[0] == groups


def biased_products(circuit: Circuit) -> dict[Unit, Value]:
    """MatMul with a weight that only an Add of a constant row reads, and the row, where they are not one unit.

    That is where the weight has more than two axes. The Add keeps its own settings, but nothing between carries a
    quantizer, nor does the row.
    """
    found = {}
    for unit in circuit.units:
        readers = circuit.behind(unit)
        if unit.type != "MatMul" or not unit.params or len(readers) != 1 or readers[0].type != "Add":
            continue
        rows = [v for v in readers[0].inputs if v not in unit.outputs and is_constant(v) and rank(v) == 1]
        if rows:
            found[unit] = rows[0]
    return found
