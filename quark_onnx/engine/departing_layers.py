"""Which layers of a QDQ model run otherwise than they are written, and why: each alone, on its inputs as written.

A piece goes from the values in front of some quantizers to one behind a quantizer, so that a runtime can make an
integer kernel of it as in the whole model. Run both ways on the same values, both read the same codes, and rounding
explains one step of the result. No float model is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ModelError
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.records import Cause
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.qdq_pieces import QUANTIZERS
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.engine.runtimes import onnxruntime_cpu
from quark_onnx.engine.runtimes.runtime import Runtime
from quark_onnx.engine.saturation_certificate import NAMED
from quark_onnx.graph import Model, Node, Value, io
from quark_onnx.graph.segments import Segment
from quark_onnx.graph.subgraphs import behind, part
from quark_onnx.graph.view import constant, input_at, is_op, output_names

Array = NDArray[Any]

STEPS = 1.5
"""Steps of the result that are not rounding: it may differ by one, and scales are rounded, too."""

LEVELS = 255
"""Steps that a result without a quantizer is taken to have."""

LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class _Piece:
    """What computes one result.

    layer  that it is called by
    step   of the quantizer of the result; None: it has none, or several
    """

    layer: Node
    segment: Segment
    step: float | None

    @property
    def name(self) -> str:
        """Of the layer, or else of what it makes."""
        return self.layer.name or self.layer.outputs[0].name or ""


def departing_layers(
    quantized: Model, feeds: Sequence[Feed], runtime: Runtime = onnxruntime_cpu.RUNTIME
) -> tuple[list[str], Cause]:
    """The first layers that differ on these feeds, in order of the graph, and the cause that they share."""
    named: list[str] = []
    cause: Cause = "unknown"
    found = _pieces(quantized)
    wanted = list(dict.fromkeys(name for piece in found for name in piece.segment.inputs))
    inputs = {value.name for value in quantized.graph.inputs}
    inner = [name for name in wanted if name not in inputs]
    runner = Runner(io.with_outputs(quantized, inner), inner or None, optimized=False)
    values = []
    for feed in feeds:
        read = fit({name: array for name, array in feed.items() if name in inputs}, quantized)
        values.append(read | dict(zip(runner.outputs, runner(read), strict=True)))
    for piece in found:
        why = _cause(quantized, piece, values, runtime)
        if why is not None and (not named or why == cause):
            named.append(piece.name)
            cause = why
        if len(named) == NAMED:
            break
    return named, cause


def _pieces(model: Model) -> list[_Piece]:
    """Pieces that compute something, in order of the graph."""
    readers = [node for node in model.graph if is_op(node, "QuantizeLinear", "DynamicQuantizeLinear")]
    bare = [node.outputs[0] for node in model.graph if is_op(node, *LAYERS) and _has_weights_only(node)]
    sources = [v for node in readers if (v := node.inputs[0]) is not None and not v.is_initializer()] + bare
    results = [result for node in readers for result in _results(node)] + bare
    shown = [value for value in model.graph.outputs if value not in results]
    found = []
    for result in dict.fromkeys((*results, *shown)):
        own = _source(result)
        segment = behind(model, result, {value for value in sources if value is not own and value is not result})
        nodes = [node for node in segment.nodes if not is_op(node, *QUANTIZERS)]
        layers = [node for node in nodes if is_op(node, *LAYERS)] or nodes
        if layers:
            found.append(_Piece(layers[-1], segment, _step(result)))
    order = {node: index for index, node in enumerate(model.graph)}
    return sorted(found, key=lambda piece: order[piece.layer])


def _results(node: Node) -> Iterator[Value]:
    """Where pieces end at a quantizer: behind its first DequantizeLinear, or in front of one that acts at run time."""
    source = node.inputs[0]
    if source is None or source.is_initializer() or source.producer() is None:
        return
    restored = [reader.outputs[0] for reader in node.outputs[0].consumers() if is_op(reader, "DequantizeLinear")]
    yield from restored[:1] if is_op(node, "QuantizeLinear") else [source]


def _has_weights_only(layer: Node) -> bool:
    """Whether a layer reads integer weights, and activations that are float."""
    restores = [v.producer() for v in layer.inputs if v is not None and is_op(v.producer(), "DequantizeLinear")]
    return bool(restores) and all(node is not None and _is_constant(node.inputs[0]) for node in restores)


def _has_rounding_kernel(layer: Node, runtime: Runtime) -> bool:
    """Whether onnxruntime has a kernel for it that rounds what it reads: a product of floats by weights in blocks."""
    return runtime.name == onnxruntime_cpu.RUNTIME.name and is_op(layer, "MatMul") and _has_weights_only(layer)


def _is_constant(codes: Value | None) -> bool:
    """Whether codes are stored, or made of a stored weight."""
    maker = None if codes is None else codes.producer()
    kept = maker.inputs[0] if is_op(maker, "QuantizeLinear") and maker is not None else codes
    return kept is not None and kept.is_initializer()


def _quantizer(result: Value) -> Node | None:
    """The quantizer in front of a DequantizeLinear."""
    restore = result.producer()
    if not is_op(restore, "DequantizeLinear") or restore is None or restore.inputs[0] is None:
        return None
    node = restore.inputs[0].producer()
    return node if is_op(node, "QuantizeLinear") else None


def _source(result: Value) -> Value | None:
    node = _quantizer(result)
    return None if node is None else node.inputs[0]


def _step(result: Value) -> float | None:
    node = _quantizer(result)
    scale = None if node is None else constant(input_at(node, 1))
    return float(scale.item()) if scale is not None and scale.size == 1 else None


def _cause(model: Model, piece: _Piece, values: Sequence[Mapping[str, Any]], runtime: Runtime) -> Cause | None:
    """Why what the piece makes differs by more than rounding on some feed; None where it does not."""
    feeds = [{name: known[name] for name in piece.segment.inputs} for known in values]
    like = {name: np.asarray(array) for name, array in feeds[0].items()}
    alone = part(model, piece.segment, like=like)
    run, written = runtime.load(alone), Runner(alone, optimized=False)
    for feed in feeds:
        found, expected = run(feed)[0], written(feed)[0]
        if _differ(found, expected, piece.step) and _may_wrap(piece.layer):
            return "wrap"
        if _differ(found, expected, piece.step) and _has_rounding_kernel(piece.layer, runtime):
            return "rounded input"
        if _differ(found, expected, piece.step):
            return "saturation" if _saturates(alone, feed, found, piece.step, runtime) else "kernel"
    return None


def _differ(found: object, expected: object, step: float | None) -> bool:
    """Whether two results are further apart than rounding makes."""
    if not isinstance(found, np.ndarray) or not isinstance(expected, np.ndarray) or expected.dtype.kind != "f":
        return False
    if found.shape != expected.shape:
        return True
    known = np.isfinite(expected)
    if not known.any():
        return False
    x, y = expected[known].astype(np.float64), found[known].astype(np.float64)
    rounding = STEPS * (float(np.ptp(x)) / LEVELS if step is None else step)
    return not bool((np.abs(x - y) <= rounding).all())


def _saturates(alone: Model, feed: Feed, found: Array, step: float | None, runtime: Runtime) -> bool:
    """Whether sums of 16 bits that saturate explain what was found."""
    if all(certificate.verdict == "exact" for certificate in runtime.certify(alone).values()):
        return False
    try:
        with runtime.without_vnni(alone, output_names(alone)) as run:
            return not _differ(found, run(feed)[0], step)
    except ModelError:
        return True  # its weights may saturate, and no more can be known


def _may_wrap(layer: Node) -> bool:
    """Whether an int32 bias leaves too little room for the products: |b| + 255 · Σ|w| beyond int32 in some channel."""
    bias, weight = _codes(layer, 2), _codes(layer, 1)
    if not is_op(layer, "Conv", "Gemm") or bias is None or weight is None or bias.dtype != np.int32:
        return False
    columns = is_op(layer, "Gemm") and not layer.attributes.get_int("transB", 0)
    rows = np.abs((weight.T if columns else weight).astype(np.int64)).reshape(len(bias), -1).sum(1)
    return bool((np.abs(bias.astype(np.int64)) + 255 * rows > LARGEST).any())


def _codes(layer: Node, index: int) -> Array | None:
    value = input_at(layer, index)
    restore = None if value is None else value.producer()
    return constant(restore.inputs[0]) if is_op(restore, "DequantizeLinear") and restore is not None else None
