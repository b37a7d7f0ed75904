"""Whole codes of trained weights: to nearest, and where neighbours bound each other, with safe pairs."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.engine.layers.matrix_geometry import Geometry, geometry
from quark_onnx.engine.layers.row_grids import safe_run
from quark_onnx.graph import Model
from quark_onnx.numerics.weight_pairs import project, repair
from quark_onnx.stages.train.latent_weights import Rounding

Array = NDArray[Any]


def roundings(model: Model, plan: Plan) -> dict[str, Rounding]:
    """How weights that must have safe pairs are rounded, as their first layer has them; others go to nearest."""
    wanted = {tensor: site.format for tensor, site in plan.sites.items() if site.format.safe_pairs}
    found: dict[str, Rounding] = {}
    for node in model.graph:
        for tensor in plan.nodes.get(node.name or "", ()):
            data, weight = (*node.inputs, None, None)[:2]
            if tensor not in wanted or tensor in found or data is None or weight is None or weight.name != tensor:
                continue
            layer = geometry(node, weight, data, 1)
            if not isinstance(layer, Skip):
                found[tensor] = partial(_safely, layer, partial(safe_run, wanted[tensor], layer))
    return found


def _safely(layer: Geometry, run_of: Any, real: Array) -> Array:
    rows = layer.rows(real)
    run = run_of(rows.shape[-1])
    near = project(rows, run)
    return layer.weight(repair(np.rint(near), near, run), real)
