"""The order of the steps: which rules are tried when, and how often."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quark_onnx.engine.missing_types import FROM_SESSION, STALE, ask_session, listed
from quark_onnx.engine.runner import newest_opset
from quark_onnx.graph import Model
from quark_onnx.graph.constant_folding import fold_constants
from quark_onnx.graph.io import copy
from quark_onnx.graph.opset import fit_opset, own_opset
from quark_onnx.graph.passes import infer_shapes, lift_constants, name_nodes, remove_unused
from quark_onnx.graph.rewrite import Outcome, rewrite
from quark_onnx.graph.value_info import drop_stale
from quark_onnx.stages.prepare import (
    constant_of_shape,
    drop_dropout,
    drop_identity,
    fold_affine,
    fold_bn,
    fold_bn_forward,
    gemm_scalars,
    known_dims,
    matmul_add_gemm,
    unshare,
    zero_bias,
)
from quark_onnx.stages.prepare.conversion_identity import convert
from quark_onnx.stages.prepare.grown_constants import as_good, grown_constants

DROP = (drop_identity.RULE, drop_dropout.RULE)

LAYER_RULES = (gemm_scalars.RULE, fold_bn.RULE, fold_affine.RULE, matmul_add_gemm.RULE, fold_bn_forward.RULE)

MAX_FOLDS = 10
"""Rounds of folding: each lets shape inference see one link further down a chain of shape arithmetic."""


@dataclass(frozen=True)
class Prepared:
    """The rewritten copy, and what became of every rule at every node where it was tried.

    `node` of an outcome is empty where it is about the whole model. `remarks` are on types and shapes that the model
    did not say, or said wrongly.
    """

    model: Model
    log: tuple[Outcome, ...]
    remarks: tuple[str, ...] = ()


def prepare(
    model: Model,
    *,
    opset: int,
    quantizers: bool = True,
    optimize: bool = True,
    biases: bool = False,
    conversions: Mapping[str, Collection[str]] | None = None,
) -> Prepared:
    """Rewrite a copy of the float model.

    Args:
        model: any model that onnx.checker accepts; not touched.
        opset: the lowest operator set that will do; a higher one stays if onnxruntime has quantizers for it.
        quantizers: False if the model will not get any, so that a higher one always stays.
        optimize: False leaves out what is not needed for correctness: folding and the rewriting of layers.
        biases: layers without a bias get one of zeros, for later stages to move.
        conversions: see `convert`.

    Raises:
        ConfigError: a name in `conversions` has nothing to convert, or onnxruntime has no quantizers in `opset`.
        ModelError: the operator set cannot be raised or lowered, or a function cannot be inlined.
    """
    model = copy(model)
    lift_constants(model)
    log = []
    highest = max(opset, own_opset(model) or opset)
    if done := fit_opset(model, opset, newest_opset(highest) if quantizers else highest):
        log.append(Outcome(done, "", None))
        lift_constants(model)
    name_nodes(model)
    stale = drop_stale(model)
    infer_shapes(model)
    log += rewrite(model.graph, [drop_identity.RULE])
    if optimize:
        log += _optimize(model)
    told = ask_session(model)
    if biases:
        log += rewrite(model.graph, [zero_bias.RULE])
    log += rewrite(model.graph, [unshare.RULE])
    convert(model.graph, conversions or {})
    latest = {(outcome.rule, outcome.node): outcome for outcome in log}
    remarks = [text.format(listed(names)) for text, names in ((STALE, stale), (FROM_SESSION, told)) if names]
    return Prepared(model, tuple(latest.values()), tuple(remarks))


def _optimize(model: Model) -> list[Outcome]:
    """All that is folded is folded, unless the file would grow by it for nothing."""
    trial = copy(model)
    log, sizes = _rewritten(trial)
    if computed := grown_constants(model, trial, sizes):
        smaller = copy(model)
        told, _ = _rewritten(smaller, computed)
        if as_good(smaller, trial):
            trial, log = smaller, told
            log.append(Outcome("fold-constants", "", f"{', '.join(sorted(computed))}: larger than what it is made of"))
    model.graph = trial.graph
    return log


def _rewritten(model: Model, computed: Collection[str] = ()) -> tuple[list[Outcome], dict[str, int]]:
    log, sizes = _fold(model, computed)
    layers = rewrite(model.graph, LAYER_RULES)
    remove_unused(model)
    if any(outcome.reason is None for outcome in layers):
        infer_shapes(model)
    return log + layers, sizes


def _fold(model: Model, computed: Collection[str]) -> tuple[list[Outcome], dict[str, int]]:
    """Fold until nothing changes. Where the library fails the model stays as it was, and the log says why."""
    log, sizes = rewrite(model.graph, DROP), dict[str, int]()
    for _ in range(MAX_FOLDS):
        folded = fold_constants(model, computed)
        sizes |= folded.sizes
        known = rewrite(model.graph, (known_dims.RULE, constant_of_shape.rule(computed)))
        log += known
        if folded.failure is not None:
            log.append(Outcome("fold-constants", "", folded.failure))
            break
        if not folded.changed and all(outcome.reason for outcome in known):
            break
        remove_unused(model)
        infer_shapes(model)
    return log, sizes
