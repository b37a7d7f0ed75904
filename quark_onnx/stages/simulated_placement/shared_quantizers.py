"""Tensors that share a quantizer, because their operator runs with one scale.

    Concat, Scatter…                the inputs take the quantizer of the output, if they have no other reader
    AveragePool, Relu, Resize       the output takes the quantizer of the input
    RNN, GRU, LSTM                  one quantizer for the hidden state, one for the cell state

The quantizer that counts for a tensor is the closest one above it, through operators that only move values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quark_onnx.graph import Value
from quark_onnx.graph.view import input_at, is_float
from quark_onnx.stages.simulated_placement.aimet_operators import GRID_PRESERVING, JOINING, RECURRENT, REUSING
from quark_onnx.stages.simulated_placement.quantizers import Board, Quantizer
from quark_onnx.stages.simulated_placement.units import Unit


@dataclass(frozen=True)
class Effective:
    """The quantizer that counts for a tensor, None if there is none; where it stands; and the way up to it."""

    quantizer: Quantizer | None
    value: Value
    path: tuple[Unit, ...] = ()


def effective(board: Board, value: Value) -> Effective:
    """What `value` has been through last."""
    current = value
    path: list[Unit] = []
    while True:
        quantizer = board.of.get(current)
        if quantizer is not None and quantizer.on:
            return Effective(quantizer, current, tuple(path))
        maker = board.circuit.makers.get(current)
        if maker is None or not maker.inputs or not _moves(maker):
            return Effective(None, value)
        path.append(maker)
        current = maker.inputs[0]


def _moves(unit: Unit) -> bool:
    """Whether the grid of the first input is that of the output."""
    floats = unit.type == "Cast" and is_float(unit.inputs[0]) and is_float(unit.outputs[0])
    return unit.title in GRID_PRESERVING or floats


def tie(board: Board) -> None:
    """All ties, in AIMET's order: joining operators from the last to the first, then reusing ones, then recurrent."""
    visited: set[Unit] = set()
    for unit in reversed(board.circuit.units):
        if unit.type in JOINING and unit.outputs and unit.outputs[0] in board.of:
            _join(board, unit, visited)
    for unit in board.circuit.units:
        if unit.type in REUSING and unit.inputs:
            _reuse(board, unit)
    for unit in board.circuit.units:
        if unit.type in RECURRENT:
            _share_state(board, unit)


def _join(board: Board, unit: Unit, visited: set[Unit]) -> None:
    """Sources with a range known beforehand keep it, unless all have the same: then the output has it too."""
    output = board.of[unit.outputs[0]]
    if not output.on:
        return
    sources = list(_sources(board, unit, visited))
    constraints = {quantizer.constraint for quantizer, _ in sources}
    if len(constraints) == 1:
        output.constraint = constraints.pop()
        tied = sources
    else:
        tied = [(quantizer, alone) for quantizer, alone in sources if quantizer.constraint is None]
    for quantizer, alone in tied:
        if alone is not None and not quantizer.param:
            board.of[alone] = output


def _sources(board: Board, unit: Unit, visited: set[Unit]) -> Iterator[tuple[Quantizer, Value | None]]:
    """The quantizers that count for the inputs, of joining operators in front too; and their tensor, if no one else
    reads it.
    """
    waiting = [unit]
    while waiting:
        current = waiting.pop()
        if current in visited:
            continue
        visited.add(current)
        for value in current.inputs:
            if not is_float(value):
                continue
            found = effective(board, value)
            shared = len(_readers(board, found)) > 1
            if found.quantizer is not None:
                yield found.quantizer, None if shared else found.value
            maker = board.circuit.makers.get(value)
            if maker is not None and not shared and (maker.type in JOINING or maker.title in GRID_PRESERVING):
                waiting.append(maker)


def _readers(board: Board, found: Effective) -> set[Unit]:
    """Who reads what the quantizer gives, on the way down and at its end."""
    readers = set(board.circuit.readers[found.value])
    readers |= {reader for unit in found.path for reader in board.circuit.behind(unit)}
    return readers - set(found.path)


def _reuse(board: Board, unit: Unit) -> None:
    found = effective(board, unit.inputs[0])
    source = found.quantizer
    for value in unit.outputs:
        behind = board.of.get(value)
        if source is None or source.param or behind is None or not behind.on or behind is source:
            continue
        if behind.constraint not in (None, source.constraint) and (source.constraint or not _alone(board, found)):
            continue  # the input would be cut to what the output is known to hold, for all who read it
        source.bits = min(source.bits, behind.bits)
        source.symmetric |= behind.symmetric
        source.unsigned |= behind.unsigned
        source.constraint = _even(source.constraint or behind.constraint, source.symmetric)
        board.of[value] = source


def _alone(board: Board, found: Effective) -> bool:
    """Whether each tensor on the way from the quantizer has one reader."""
    values = (found.value, *(unit.outputs[0] for unit in found.path))
    return all(len(board.circuit.readers[value]) == 1 for value in values)


def _even(constraint: tuple[float, float | None] | None, symmetric: bool) -> tuple[float, float | None] | None:
    """The range around 0 that holds a constraint, where the grid is symmetric."""
    if constraint is None or constraint[1] is None or not symmetric:
        return constraint
    end = max(abs(constraint[0]), abs(constraint[1]))
    return -end, end


def _share_state(board: Board, unit: Unit) -> None:
    """Y_h and initial_h have the quantizer of Y, initial_c that of Y_c.

    AIMET has X follow Y as well, and pools what it sees of both. Here a group has the range of its leader, and that of
    a state is too narrow for X.
    """
    node = unit.nodes[0]
    states = ((0, (5,), (1,)),) if unit.type != "LSTM" else ((0, (5,), (1,)), (2, (6,), ()))
    for leader, inputs, outputs in states:
        lead = _output(board, unit, leader)
        if lead is None or not lead.on:
            continue
        followers = [_output(board, unit, index) for index in outputs]
        values = (input_at(node, index) for index in inputs)
        followers += [effective(board, value).quantizer for value in values if value is not None]
        for value, quantizer in tuple(board.of.items()):
            if quantizer in followers and not quantizer.param:
                board.of[value] = lead


def _output(board: Board, unit: Unit, index: int) -> Quantizer | None:
    outputs = unit.nodes[0].outputs
    return board.of.get(outputs[index]) if index < len(outputs) else None
