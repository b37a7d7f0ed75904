"""Plans without ranges of activations: integer weights alone, or activations that are quantized while the model runs.

Only layers with a constant weight take part, and of these only the weight and (quantized at run time) the input: the
output, the bias and every other operator stay float. No calibration data is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import Graph, Node
from quark_onnx.graph.view import is_op
from quark_onnx.stages.place.site_request import SiteRequest

ALONE = "only weights are quantized (WeightsOnly)"
AT_RUN_TIME = "only inputs of layers are quantized at run time (use_dynamic_quant)"
BYTES = Format(8, signed=False)
"""What DynamicQuantizeLinear makes."""


def without_ranges(
    graph: Graph, requests: Mapping[str, SiteRequest], notes: dict[str, str], config: QuantizationConfig
) -> dict[str, SiteRequest]:
    """Requests of layers, with only their weight and, at run time, their input; `notes` say why the others are out."""
    dynamic = config.use_dynamic_quant
    found = {}
    for node in graph:
        name = node.name or ""
        weighty = is_op(node, *LAYERS) and name in requests and any(s.role == "weight" for s in requests[name].sites)
        if weighty:
            found[name] = _at_run_time(node, requests[name]) if dynamic else weight_alone(requests[name])
    taken_in = {n.name or "" for request in found.values() for n in request.absorbed}
    known = found.keys() | taken_in | notes.keys()
    notes |= {node.name or "": AT_RUN_TIME if dynamic else ALONE for node in graph if (node.name or "") not in known}
    return found


def weight_alone(request: SiteRequest) -> SiteRequest:
    """The request with its weight and nothing else; the constant Add behind a MatMul stays its bias."""
    adds = [other for other in request.absorbed if is_op(other, "Add")]
    return SiteRequest(request.rule, [site for site in request.sites if site.role == "weight"], absorbed=adds)


def _at_run_time(node: Node, request: SiteRequest) -> SiteRequest:
    """The weight, and the input as bytes."""
    reduced, inputs = weight_alone(request), {value.name for value in node.inputs if value is not None}
    for site in request.sites:
        if site.role == "activation" and site.tensor in inputs:
            reduced.sites.append(Site(site.tensor, "dynamic", BYTES, site.tensor, request.rule))
    return reduced
