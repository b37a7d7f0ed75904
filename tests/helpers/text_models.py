"""What the rule tests share: models written as ONNX text, and the proof that a rewrite kept their outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx_text import parse_model

from quark_onnx.graph import Model, io
from quark_onnx.stages.prepare import Prepared, prepare

Feeds = Mapping[str, np.ndarray]


def text_model(text: str, opset: int = 17, ir_version: int = 8, **constants: Any) -> onnx.ModelProto:
    """The model `g (inputs) => (outputs) { nodes }` with the arrays as initializers."""
    model = parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}]> {text}')
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Reproducible normal numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def batchnorm(channels: int, seed: int = 1, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Parameters named gamma, beta, mean, var."""
    rows = normal(4, channels, seed=seed, dtype=dtype)
    return {"gamma": rows[0], "beta": rows[1], "mean": rows[2], "var": abs(rows[3]) + dtype(0.1)}


GATES = ("Add", "Mul", "Clip")
"""What a CPU runs on integers of a HardSwish: `prepare(integers=…)`."""


def prepared(proto: onnx.ModelProto, *, opset: int = 13, optimize: bool = True, **target: Any) -> Prepared:
    """`prepare`, with what must hold for every model: valid, input untouched, the same twice, same interface."""
    before = proto.SerializeToString(deterministic=True)
    model = io.load(proto)
    result = prepare(model, opset=opset, optimize=optimize, **target)
    again = prepare(model, opset=opset, optimize=optimize, **target)
    after = io.to_proto(result.model)
    onnx.checker.check_model(after)
    assert proto.SerializeToString(deterministic=True) == before
    assert io.fingerprint(again.model) == io.fingerprint(result.model)
    assert [v.name for v in after.graph.output] == [v.name for v in proto.graph.output]
    names = [node.name for node in after.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    return result


def ops(result: Prepared) -> Counter[str]:
    """Operators left, by number."""
    return Counter(node.op_type for node in result.model.graph)


def applied(result: Prepared, rule: str) -> list[str]:
    """The nodes at which the rule was applied."""
    return [outcome.node for outcome in result.log if outcome.rule == rule and outcome.reason is None]


def reasons(result: Prepared, rule: str) -> list[str]:
    """Why the rule was not applied, node by node."""
    return [outcome.reason for outcome in result.log if outcome.rule == rule and outcome.reason is not None]


def run(model: onnx.ModelProto | Model, feeds: Feeds) -> list[np.ndarray]:
    """All outputs, computed by onnxruntime without rewriting the graph."""
    proto = model if isinstance(model, onnx.ModelProto) else io.to_proto(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def assert_same(proto: onnx.ModelProto, result: Prepared, feeds: Feeds, *, terms: int) -> None:
    """Outputs agree up to the rounding of sums of `terms` products.

    A float sum of n products is off by at most n·eps·Σ|products|. For the normal numbers used here Σ|products| stays
    below 4 max|y|, and both models round: 8·terms·eps·max|y|. `terms=0` asks for equal bits.
    """
    for want, got in zip(run(proto, feeds), run(result.model, feeds), strict=True):
        assert want.dtype == got.dtype
        assert want.shape == got.shape
        if terms == 0 or not np.issubdtype(want.dtype, np.floating):
            np.testing.assert_array_equal(got, want)
        else:
            bound = 8 * terms * float(np.finfo(want.dtype).eps) * float(np.abs(want).max(initial=1e-30))
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=0, atol=bound)


def weights(result: Prepared) -> dict[str, np.ndarray]:
    """Initializers by name."""
    return {name: value.const_value.numpy() for name, value in result.model.graph.initializers.items()}
