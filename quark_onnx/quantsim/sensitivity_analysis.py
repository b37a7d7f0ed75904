"""Which layers quantization harms: the score of a simulation with the quantizers of one layer on, or off, at a time."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.checked_fields import flag
from quark_onnx.graph import Node
from quark_onnx.quantsim.quantizer import Quantizer
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.simulation import simulated

logger = logging.getLogger("quark_onnx")

EvalFn = Callable[[Any], float]


def analyze_per_layer_sensitivity(
    sim: QuantizationSimModel, eval_fn: EvalFn, filename: str | Path | None = None, *, enabled: bool = True
) -> dict[str, float]:
    """How much the quantizers of every single node matter; the simulation is left as it was, whatever happens.

    Those of a node are the ones on its parameters, its outputs, and the inputs that no node computes. Tensors that
    share a quantizer are quantized together.

    Args:
        sim: with encodings.
        eval_fn: called as `eval_fn(session)`, once per node; higher is better. See `make_psnr_eval_fn`.
        filename: of a JSON file to write the scores to.
        enabled: True: the score with only the quantizers of the node on, so that the lowest score is that of the layer
            that suffers most. False: with all others on, so that the highest score is that of this layer.

    Returns:
        Node → score, in the order of the model; nodes without a quantizer that is on are left out.

    Raises:
        ConfigError: a quantizer has no encoding, a score is no number, or the file cannot be written.
    """
    alone, target = flag("enabled", enabled), _json_path(filename)
    _ = simulated(sim).plan  # every encoding is there, and what cannot be quantized is off
    layers = {node.name or "": own for node in sim.float_model.graph if (own := _own(node, sim))}
    with restored(sim) as on:
        scores = {node: _score(sim, on, own, node, eval_fn, alone=alone) for node, own in layers.items()}
    if target is not None:
        with new_file(target) as path:
            path.write_text(
                json.dumps({n: s if math.isfinite(s) else None for n, s in scores.items()}, indent=1) + "\n"
            )
    return scores


def _json_path(filename: str | Path | None) -> Path | None:
    if filename is not None and Path(filename).suffix.lower() in (".html", ".htm"):
        raise ConfigError(f"{filename}: scores are written as JSON; give a name that ends in .json")
    return None if filename is None else Path(filename)


def _own(node: Node, sim: QuantizationSimModel) -> list[Quantizer]:
    """The quantizers of a node that are on; what another node computes is a matter of that one."""
    read = [v.name or "" for v in node.inputs if v is not None and v.producer() is None]
    names = (*read, *(v.name or "" for v in node.outputs))
    known = sim.qc_quantize_op_dict
    return list(dict.fromkeys(known[name] for name in names if name in known and known[name].enabled))


@contextmanager
def restored(sim: QuantizationSimModel) -> Iterator[list[Quantizer]]:
    """The quantizers that are on; after the block just these are on again."""
    before = {q: q.enabled for q in sim.qc_quantize_op_dict.values()}
    try:
        yield [quantizer for quantizer, on in before.items() if on]
    finally:
        for quantizer, on in before.items():
            quantizer.enabled = on


def _score(
    sim: QuantizationSimModel, on: list[Quantizer], own: list[Quantizer], node: str, eval_fn: EvalFn, *, alone: bool
) -> float:
    for quantizer in on:
        quantizer.enabled = (quantizer in own) == alone
    value = eval_fn(sim.session)
    try:
        score = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"eval_fn must return a number; for node {node!r} it returned {value!r}") from error
    logger.info("%s: %g with %s quantizers", node, score, "only its" if alone else "all but its")
    return score
