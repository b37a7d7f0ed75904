"""The order of the steps: which rules are tried when, and how often."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from quark_onnx.core.errors import ModelError
from quark_onnx.engine.missing_types import FROM_SESSION, STALE, ask_session, listed
from quark_onnx.engine.runner import newest_opset
from quark_onnx.graph import Model
from quark_onnx.graph.constant_folding import fold_constants
from quark_onnx.graph.io import copy
from quark_onnx.graph.opset import fit_opset, own_opset
from quark_onnx.graph.passes import infer_shapes, lift_constants, name_nodes, name_values, remove_unused
from quark_onnx.graph.rewrite import Outcome, Rule, rewrite
from quark_onnx.graph.value_info import drop_stale
from quark_onnx.graph.view import is_op
from quark_onnx.stages.prepare import (
    constant_of_shape,
    drop_dropout,
    drop_identity,
    drop_neutral,
    enlarge_planes,
    fill_channels,
    fold_affine,
    fold_affine_forward,
    fold_bn,
    fold_bn_forward,
    gelu,
    gemm_scalars,
    hard_sigmoid,
    hard_swish,
    inline_if,
    known_dims,
    matmul_add_gemm,
    scale_behind_clamp,
    strides_in_front,
    unshare,
    weights_of_integers,
    zero_bias,
)
from quark_onnx.stages.prepare.conversion_identity import convert
from quark_onnx.stages.prepare.grown_constants import as_good, grown_constants
from quark_onnx.stages.prepare.microsoft import as_standard, better_opsets, still_inside
from quark_onnx.stages.prepare.taken_branches import Conditions, take_branches

BRANCHES = (inline_if.RULE, drop_identity.RULE)

DROP = (*BRANCHES, drop_dropout.RULE)

LAYER_RULES = (drop_neutral.RULE, gemm_scalars.RULE, fold_bn.RULE, fold_affine.RULE, matmul_add_gemm.RULE)

GATES = (scale_behind_clamp.RULE, hard_swish.RULE, hard_sigmoid.RULE)
"""HardSwish and HardSigmoid as what runs on integers: Add, Mul, and a Clip that a quantizer takes in."""

FORWARD = (fold_bn_forward.RULE, fold_affine_forward.RULE)
"""What no layer in front took: last, so that it goes to the layer behind only then."""

MAX_FOLDS = 10
"""Rounds of folding: each lets shape inference see one link further down a chain of shape arithmetic."""


@dataclass(frozen=True)
class Prepared:
    """The rewritten copy, and what became of every rule at every node where it was tried.

    `node` of an outcome is empty where it is about the whole model. `remarks` are on types and shapes that the model
    did not say, or said wrongly. `conditions` are those of the Ifs that `branches` inlined.
    """

    model: Model
    log: tuple[Outcome, ...]
    remarks: tuple[str, ...] = ()
    conditions: Conditions | None = None


def prepare(
    model: Model,
    *,
    opset: int | None,
    quantizers: bool = True,
    optimize: bool = True,
    biases: bool = False,
    integers: Collection[str] = (),
    block: int = 1,
    apart: bool = False,
    numbered: Collection[str] = (),
    conversions: Mapping[str, Collection[str]] | None = None,
    branches: Mapping[str, str] | None = None,
) -> Prepared:
    """Rewrite a copy of the float model.

    Args:
        model: any model that onnx.checker accepts; not touched.
        opset: the lowest operator set that will do; a higher one stays if onnxruntime has quantizers for it. None: it
            stays what it is.
        quantizers: False if the model will not get any, so that a higher one always stays.
        optimize: False leaves out what is not needed for correctness: folding and the rewriting of layers.
        biases: layers without a bias get one of zeros, for later stages to move.
        integers: operator types without a weight that the target runs on integers; a Clip among them if a quantizer
            takes it in. What is made of others is decided by this.
        block: channels that lie together where the target has them last (`Target.channel_block`).
        apart: strides of convolutions of one position go in front (`Target.strides_apart`).
        numbered: tensors with numbers for each of their channels, which stay as many.
        conversions: see `convert`.
        branches: If → the branch that is to be taken, whatever its condition.

    Raises:
        ConfigError: a name in `conversions` has nothing to convert, `branches` names no If, or onnxruntime has no
            quantizers in `opset`.
        ModelError: the operator set cannot be raised or lowered, or a function cannot be inlined.
    """
    model = copy(model)
    lift_constants(model)
    log = [] if opset is None else _fitted(model, opset, integers if optimize else (), quantizers=quantizers)
    remove_unused(model)
    name_nodes(model)
    name_values(model)
    conditions = take_branches(model, branches) if branches else None
    stale = drop_stale(model)
    infer_shapes(model)
    log += rewrite(model.graph, [drop_identity.RULE, *weights_of_integers.RULES])
    if optimize and quantizers:
        log += as_standard(model, forms=bool(integers))
    if optimize:
        layout = [fill_channels.rule(block, numbered), enlarge_planes.RULE] if block > 1 else []
        layout += [strides_in_front.RULE] if apart else []
        log += _optimize(model, integers, layout)
    told = ask_session(model)
    if biases:
        log += rewrite(model.graph, [zero_bias.RULE])
    log += rewrite(model.graph, [unshare.RULE])
    convert(model.graph, conversions or {})
    latest = {(outcome.rule, outcome.node): outcome for outcome in log}
    remarks = [text.format(listed(names)) for text, names in ((STALE, stale), (FROM_SESSION, told)) if names]
    remarks += still_inside(list(latest.values()))
    return Prepared(model, tuple(latest.values()), tuple(remarks), conditions)


def _fitted(model: Model, opset: int, integers: Collection[str], *, quantizers: bool) -> list[Outcome]:
    """Raise or lower the operator set, if need be; arguments as of `prepare`."""
    opset = _worthwhile(model, opset) if integers else opset
    highest = max(opset, own_opset(model) or opset)
    done = fit_opset(model, opset, newest_opset(highest) if quantizers else highest)
    if done is None:
        return []
    lift_constants(model)
    return [Outcome(done, "", None)]


def _worthwhile(model: Model, opset: int) -> int:
    """The operator set to ask for: the highest that operators are better off in, and the model can be raised to."""
    for better in sorted(_better(model), reverse=True):
        wanted = max(opset, better)
        if (own_opset(model) or opset) >= wanted:
            return opset
        try:
            if newest_opset(wanted) >= wanted:
                fit_opset(copy(model), wanted, wanted)
                return wanted
        except ModelError:
            continue
    return opset


def _better(model: Model) -> set[int]:
    """Operator sets with operators that pay."""
    found = better_opsets(model)
    if any(is_op(node, "Erf", "Tanh") for node in model.graph):
        infer_shapes(model)
        found |= {gelu.OPSET} if gelu.pays(model.graph) else set()
    return found


def _optimize(model: Model, integers: Collection[str], layout: Sequence[Rule]) -> list[Outcome]:
    """All that is folded is folded, unless the file would grow by it for nothing."""
    trial = copy(model)
    log, sizes = _rewritten(trial, integers, layout)
    if computed := grown_constants(model, trial, sizes):
        smaller = copy(model)
        told, _ = _rewritten(smaller, integers, layout, computed)
        if as_good(smaller, trial):
            trial, log = smaller, told
            log.append(Outcome("fold-constants", "", f"{', '.join(sorted(computed))}: larger than what it is made of"))
    model.graph = trial.graph
    return log


def _rewritten(
    model: Model, integers: Collection[str], layout: Sequence[Rule], computed: Collection[str] = ()
) -> tuple[list[Outcome], dict[str, int]]:
    log, sizes = _fold(model, computed)
    composed = [gelu.RULE] if integers and (own_opset(model) or 0) >= gelu.OPSET else []
    layers = rewrite(model.graph, (*composed, *LAYER_RULES, *_gates(integers), *FORWARD))
    remove_unused(model)
    if any(outcome.reason is None for outcome in layers):
        infer_shapes(model)
    laid = rewrite(model.graph, layout)
    if any(outcome.reason is None for outcome in laid):
        infer_shapes(model)
    return log + layers + laid, sizes


def _gates(integers: Collection[str]) -> tuple[Rule, ...]:
    """The rules for gates, where the target runs their parts on integers and not the operators themselves."""
    parts, whole = {"Add", "Mul", "Clip"}, {"HardSwish", "HardSigmoid"}
    return GATES if parts.issubset(integers) and whole.isdisjoint(integers) else ()


def _fold(model: Model, computed: Collection[str]) -> tuple[list[Outcome], dict[str, int]]:
    """Fold until nothing changes. Where the library fails the model stays as it was, and the log says why."""
    log, sizes = rewrite(model.graph, DROP), dict[str, int]()
    for _ in range(MAX_FOLDS):
        folded = fold_constants(model, computed)
        sizes |= folded.sizes
        known = rewrite(model.graph, (*BRANCHES, known_dims.RULE, constant_of_shape.rule(computed)))
        log += known
        if folded.failure is not None:
            log.append(Outcome("fold-constants", "", folded.failure))
            break
        if not folded.changed and all(outcome.reason for outcome in known):
            break
        remove_unused(model)
        infer_shapes(model)
    return log, sizes
