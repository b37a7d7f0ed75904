"""One quantizer per float32 tensor, all off at first; what the sections of a configuration make of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.aimet_runtime_config import OpRule, ParamRule, RuntimeConfig
from quark_onnx.graph import Value
from quark_onnx.graph.view import is_constant, numpy_dtype, shape
from quark_onnx.stages.simulated_placement.aimet_operators import GRID_PRESERVING, NEVER_BEHIND, ONLY_FIRST_INPUT
from quark_onnx.stages.simulated_placement.supergroups import biased_products, chains
from quark_onnx.stages.simulated_placement.units import Circuit, Unit


@dataclass(eq=False)
class Quantizer:
    """The settings of one tensor while they are being decided; tensors that share an object share a scale.

    owner       the tensor it was made for
    param       type of the parameter; empty for activations and constants
    constraint  (lo, hi) known beforehand; hi may be open
    rule        what turned it on
    """

    owner: Value
    bits: int
    param: str = ""
    on: bool = False
    symmetric: bool = False
    strict: bool = False
    unsigned: bool = False
    axis: int | None = None
    constraint: tuple[float, float | None] | None = None
    rule: str = ""


class Board:
    """The quantizers of a circuit, by tensor."""

    def __init__(self, circuit: Circuit, activation_bits: int, weight_bits: int) -> None:
        self.circuit = circuit
        self.of: dict[Value, Quantizer] = {}
        for unit in circuit.units:
            for kind, value in unit.params.items():
                if quantizable(value):
                    self.of.setdefault(value, Quantizer(value, weight_bits, kind))
        for value in _activations(circuit):
            self.of.setdefault(value, Quantizer(value, activation_bits))

    def params(self) -> Iterator[tuple[Unit, str, Quantizer]]:
        """Every parameter of every unit, with its type."""
        for unit in self.circuit.units:
            for kind, value in unit.params.items():
                if value in self.of:
                    yield unit, kind, self.of[value]

    def outputs(self, unit: Unit) -> list[Quantizer]:
        """Those behind a unit."""
        return [self.of[value] for value in unit.outputs if value in self.of]

    def inputs(self, unit: Unit) -> list[Quantizer]:
        """Those in front of a unit, without its parameters."""
        found = (self.of[value] for value in unit.inputs if value in self.of)
        return [quantizer for quantizer in found if not quantizer.param]


def quantizable(value: Value) -> bool:
    """Whether it is known to be a tensor of float32, and not an empty one."""
    return numpy_dtype(value) == "float32" and 0 not in (shape(value) or ())


def _activations(circuit: Circuit) -> Iterator[Value]:
    """What may carry the quantizer of an activation: float32 tensors that someone computes or reads as data."""
    graph = circuit.graph
    silent = {
        v for unit in circuit.units if unit.type in ONLY_FIRST_INPUT for v in unit.inputs if v is not _first(unit)
    }
    silent |= {value for unit in circuit.units if unit.type in NEVER_BEHIND for value in unit.outputs}
    both = ((*unit.inputs, *unit.outputs) for unit in circuit.units)
    for value in (*graph.inputs, *(value for values in both for value in values)):
        if value not in silent and quantizable(value):
            yield value


def _first(unit: Unit) -> Value | None:
    return unit.inputs[0] if unit.inputs else None


def configure(board: Board, config: RuntimeConfig) -> None:
    """All sections, in their order.

    Raises:
        ConfigError: the operator types on both sides of a tensor ask for different things.
    """
    _defaults(board, config)
    for _, kind, quantizer in board.params():
        _set_param(quantizer, config.params.get(kind), f"params.{kind}")
    _op_types(board, config.op_types)
    biased = biased_products(board.circuit) if "MatmulAdd" in config.passes else {}
    barred = {part for product in biased for part in (product, *board.circuit.behind(product))}
    for chain in chains(board.circuit, config.supergroups, barred):
        _off(quantizer for unit in chain[:-1] for quantizer in board.outputs(unit))
    if config.model_input:
        _on((board.of[value] for value in _entering(board)), "model_input")
    if config.model_output:
        ends = (unit for unit in board.circuit.units if not board.circuit.behind(unit))
        _on((quantizer for unit in ends for quantizer in board.outputs(unit)), "model_output")
    for unit, bias in biased.items():
        _off([*board.outputs(unit), *(board.of[value] for value in (bias,) if value in board.of)])


def _on(quantizers: Iterable[Quantizer], rule: str) -> None:
    for quantizer in quantizers:
        quantizer.on, quantizer.rule = True, rule


def _off(quantizers: Iterable[Quantizer]) -> None:
    for quantizer in quantizers:
        quantizer.on = False


def _entering(board: Board) -> Iterator[Value]:
    """Inputs of the model that someone reads, and constants that are no parameters."""
    made = {value for unit in board.circuit.units if unit.type == "ConstantOfShape" for value in unit.outputs}
    for value, quantizer in board.of.items():
        read = bool(board.circuit.readers[value])
        if not quantizer.param and (is_constant(value) or value in made or (value.is_graph_input() and read)):
            yield value


def _defaults(board: Board, config: RuntimeConfig) -> None:
    for quantizer in board.of.values():
        quantizer.strict, quantizer.unsigned = config.strict, config.unsigned
        if quantizer.param:
            _set_param(quantizer, config.param, "defaults.params")
        else:
            quantizer.symmetric = bool(config.symmetric)
    if config.outputs:
        _on((quantizer for unit in board.circuit.units for quantizer in board.outputs(unit)), "defaults.ops")
    _off(board.of[value] for value in _entering(board))


def _set_param(quantizer: Quantizer, rule: ParamRule | None, where: str) -> None:
    if rule is None:
        return
    if rule.quantized is not None:
        quantizer.on = rule.quantized
        quantizer.rule = where if rule.quantized else quantizer.rule
    if rule.symmetric is not None:
        quantizer.symmetric = rule.symmetric


def _op_types(board: Board, rules: Mapping[str, OpRule]) -> None:
    units = [(unit, rules[unit.type]) for unit in board.circuit.units if unit.type in rules]
    for unit in board.circuit.units:
        if unit.title in GRID_PRESERVING and unit.type not in rules:
            _off(board.outputs(unit))
    on, symmetric = _Claims("is_quantized"), _Claims("is_symmetric")
    for unit, rule in units:
        outputs, around = board.outputs(unit), [*board.inputs(unit), *board.outputs(unit)]
        on.claim(board.inputs(unit), rule.inputs, f"op_type.{unit.type}.is_input_quantized")
        on.claim(outputs, rule.outputs, f"op_type.{unit.type}.is_output_quantized")
        symmetric.claim(around, rule.symmetric, f"op_type.{unit.type}.is_symmetric")
    for quantizer, (wanted, where) in on.made.items():
        _on([quantizer], where.rpartition(".")[0]) if wanted else _off([quantizer])
    for quantizer, (wanted, _) in symmetric.made.items():
        quantizer.symmetric = wanted
    for unit, rule in units:
        if rule.constraint is not None:
            _constrain(board.outputs(unit), rule.constraint)
        for kind, value in unit.params.items():
            if value in board.of:
                _set_param(board.of[value], rule.params.get(kind), f"op_type.{unit.type}.params.{kind}")


def _constrain(quantizers: Iterable[Quantizer], constraint: tuple[float, float | None]) -> None:
    """A range that is known beforehand; one that is even around 0 makes the grid symmetric."""
    low, high = constraint
    for quantizer in quantizers:
        quantizer.constraint = constraint
        quantizer.symmetric |= high is not None and low == -high


class _Claims:
    """What operator types want of the tensors between them: all who say something must say the same."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.made: dict[Quantizer, tuple[bool, str]] = {}

    def claim(self, quantizers: Iterable[Quantizer], wanted: bool | None, where: str) -> None:
        """Note what one operator type says, if it does.

        Raises:
            ConfigError: another one said the opposite.
        """
        for quantizer in quantizers if wanted is not None else ():
            other, there = self.made.setdefault(quantizer, (bool(wanted), where))
            if other is not wanted:
                raise ConfigError(
                    f"{there} and {where} contradict each other at tensor {quantizer.owner.name!r}: one says "
                    f'"True", the other "False"; change one of them, or take one of them out'
                )
