"""Small models for the tests of placement, apply and ledger: ONNX text in; plan, quantized model and runs out."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx_text import parse_model

from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.observe import observe
from quark_onnx.engine.runner import Runner, executed_model, input_specs
from quark_onnx.graph import Model, io
from quark_onnx.graph.passes import infer_shapes, lift_constants, name_nodes
from quark_onnx.stages.place import place
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.scale_alignment import align
from quark_onnx.stages.weight_rounding import round_weights

Feed = dict[str, np.ndarray]


def noise(info: onnx.ValueInfoProto) -> np.ndarray:
    """Normal numbers of the declared shape and type that depend on the name alone."""
    kind = info.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    numbers = np.random.default_rng(zlib.crc32(info.name.encode())).standard_normal(shape)
    return numbers.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def graph(text: str, opset: int = 17, **arrays: Any) -> Model:
    """A model as placement expects it: constants lifted, shapes inferred, every node named.

    `text` is `(inputs) => (outputs) <declarations> { nodes }`. What is declared and not computed becomes an
    initializer: with the numbers in `arrays`, else with noise. Names in `arrays` need no declaration.
    """
    return _as_placed(_parsed(text, opset, arrays))


def graph_between(text: str, opset: int = 17, **arrays: Any) -> Model:
    """The model of `graph`, with a layer in front of every float input that is read, and behind every float output.

    So its operators get integers, which another layer needs anyway, and what they compute is read as integers. All that
    is added is named `outer_…`: the layers, their weights, and the model's inputs and outputs; inputs and outputs of
    the text keep their names.
    """
    proto = onnx.shape_inference.infer_shapes(_parsed(text, opset, arrays))
    inner = proto.graph
    read = {name for node in inner.node for name in node.input}
    for info in [info for info in inner.input if _is_data(info) and info.name in read]:
        outer = _outer_layer(inner, info, f"outer_{info.name}", info.name)
        other = onnx.helper.make_node("MatMul", [info.name, outer.input[1]], [f"outer_{info.name}_other"])
        inner.node.insert(0, outer)
        inner.node.append(other)
        inner.output.add(name=other.output[0], type=info.type)
        info.name = outer.input[0]
    for info in [info for info in inner.output if _is_data(info) and not info.name.startswith("outer_")]:
        outer = _outer_layer(inner, info, info.name, f"outer_{info.name}")
        inner.node.append(outer)
        info.name = outer.output[0]
    return _as_placed(proto)


def _parsed(text: str, opset: int, arrays: Mapping[str, Any]) -> onnx.ModelProto:
    proto = parse_model(f'<ir_version: 10, opset_import: ["": {opset}, "other": 1]> g {text}')
    computed = {name for node in proto.graph.node for name in node.output}
    drawn = {info.name: noise(info) for info in proto.graph.value_info if info.name not in computed}
    for name, array in {**drawn, **arrays}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return proto


def _as_placed(proto: onnx.ModelProto) -> Model:
    onnx.checker.check_model(proto, full_check=True)
    model = io.load(proto)
    lift_constants(model)
    infer_shapes(model)
    name_nodes(model)
    return model


def _is_data(info: onnx.ValueInfoProto) -> bool:
    kind = info.type.tensor_type
    return kind.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) and len(kind.shape.dim) > 0


def _outer_layer(inner: onnx.GraphProto, info: onnx.ValueInfoProto, source: str, result: str) -> onnx.NodeProto:
    """A product with a square matrix, so that the shape stays."""
    kind = info.type.tensor_type
    width, name = kind.shape.dim[-1].dim_value, f"outer_{info.name}_weight"
    weight = np.random.default_rng(zlib.crc32(name.encode())).standard_normal((width, width))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    inner.initializer.append(onnx.numpy_helper.from_array(weight.astype(dtype), name))
    return onnx.helper.make_node("MatMul", [source, name], [result], name=f"outer_{info.name}_layer")


def settings(**fields: Any) -> QuantizationConfig:
    """A configuration; names that are no field are extra options."""
    known = QuantizationConfig.__dataclass_fields__
    options = {key: fields.pop(key) for key in list(fields) if key not in known}
    return QuantizationConfig(**fields, extra_options=options)


def placed(model: Model, **fields: Any) -> Plan:
    """Sites only. The graph must come out of it untouched, and every node be in the plan or have a reason not to."""
    before = io.fingerprint(model)
    plan = place(model, settings(**fields))
    assert io.fingerprint(model) == before
    names = sorted(node.name or "" for node in model.graph)
    assert sorted([*plan.nodes, *plan.notes]) == names
    return plan


def layout(plan: Plan) -> str:
    """The sites as `tensor:role`, followers as `tensor:role=leader`, sorted by name; none of `graph_between` itself."""
    sites = [site for site in plan.sites.values() if not site.tensor.startswith("outer_")]
    parts = [f"{s.tensor}:{s.role}" + f"={s.group}" * (s.group != s.tensor) for s in sites]
    return " ".join(sorted(parts))


def feeds(model: Model, count: int = 4, seed: int = 0) -> list[Feed]:
    """Normal numbers for float inputs, 0 and 1 for all others; open dimensions are 2."""
    rng = np.random.default_rng(seed)

    def draw(dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        return (rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)

    specs = [(spec.name, spec.dtype, tuple(dim or 2 for dim in spec.shape or ())) for spec in input_specs(model)]
    return [{name: draw(dtype, shape) for name, dtype, shape in specs} for _ in range(count)]


class Made(NamedTuple):
    """A model and what became of it."""

    model: Model
    plan: Plan
    quantized: Model


def quantized(model: Model, data: list[Feed] | None = None, **fields: Any) -> Made:
    """Place, observe, choose ranges, round weights, apply; onnx.checker must pass, and the model be what it was."""
    before = io.to_proto(model).SerializeToString(deterministic=True)
    sites = placed(model, **fields)
    statistics = observe(model, data or feeds(model), observed_tensors(sites), lambda done: None)
    config = settings(**fields)
    plan = align(model, choose_ranges(model, sites, statistics, config), config)
    plan = round_weights(model, plan, {}, config.row, config.weight_pairs)
    result = apply(model, plan)
    io.check(result)
    assert io.to_proto(model).SerializeToString(deterministic=True) == before
    return Made(model, plan, result)


def run(model: Model, feed: Mapping[str, np.ndarray], *, optimized: bool = False) -> list[np.ndarray]:
    """The outputs, computed as written or as onnxruntime would for a user."""
    return Runner(model, optimized=optimized, threads=1)(dict(feed))


def executed_kernels(model: Model) -> Counter[str]:
    """How often each operator stands in the graph that onnxruntime executes."""
    with executed_model(model) as executed:
        return Counter(node.op_type for node in executed.graph)


def first_outputs(model: Model, data: list[Feed]) -> np.ndarray:
    """The first output for all feeds, computed as written, one after the other."""
    runner = Runner(model, optimized=False, threads=1)
    return np.concatenate([runner(feed)[0].ravel() for feed in data])


def constants(model: Model) -> dict[str, np.ndarray]:
    """Initializers by name."""
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
