"""Tables that a Gather looks up: integers with a scale per row, and nothing but rows asked for is dequantized."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, QuantizationConfig, Result, get_default_config
from quark_onnx.core.plan import TABLE
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.runner import Runner, executed_model
from quark_onnx.graph import io
from quark_onnx.stages.place.idle_operators import tidied

SIGNATURE = "g (int64[N,5] i) => (float[N,5,8] y)"
BODY = "[look] e = Gather (t, i) [more] p = Gather (t, k) s = Add (e, p) n = Tanh (s) [product] y = MatMul (n, w)"
ROWS, WIDTH = 600, 32
TABLE_NUMBERS = normal(ROWS, WIDTH) * np.where(np.arange(ROWS) == 7, 100, 1).astype(np.float32)[:, None]
CONSTANTS = {"t": TABLE_NUMBERS, "w": normal(WIDTH, 8), "k": np.arange(5)}
DATA = [{"i": np.random.default_rng(seed).integers(0, ROWS, (4, 5))} for seed in range(4)]
NARROW = {"t": normal(ROWS, 20), "w": normal(20, 8)}
WIDE = normal(5, 4000)
ODD = normal(1000, 20)
PRESETS = ["S8S8_AAWS", "INT8_PROTECTED", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS", "S8S8_AAWS_ADAROUND", "U16S16_AAWS"]


def quantize(
    config: QuantizationConfig | str, body: str = BODY, signature: str = SIGNATURE, **numbers: object
) -> Result:
    config = get_default_config(config) if isinstance(config, str) else config
    model = text_model(f"{signature} {{ {body} }}", **{**CONSTANTS, **numbers})
    return ModelQuantizer(config).quantize_model(model, None, DATA)


def floats(model: onnx.ModelProto) -> int:
    """Elements of the largest float initializer."""
    found = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    return max(int(np.prod(w.dims)) for w in found)


@pytest.mark.parametrize("preset", PRESETS)
def test_rows_are_looked_up_as_integers(preset: str) -> None:
    """Once, however many look it up; and a row 100 times as large costs the others nothing."""
    found = quantize(preset, body=BODY.replace("n = Tanh (s) ", "").replace("MatMul (n", "MatMul (s"))
    rows = {row.node: row for row in found.report.ledger}
    assert {rows[name].status for name in ("look", "more") if name in rows} == {"integer"}
    bits = found.plan.sites["t"].format.bits
    assert bits == (16 if preset.startswith("U16") else 8)
    assert floats(found.model) == ROWS
    assert found.report.bytes["quantized"] < found.report.bytes["float"] * (bits + 2) / 32
    model = io.load(found.model)
    values = [node.outputs[0].name for node in model.graph if node.op_type == "Mul"]
    ids = np.arange(ROWS).reshape(-1, 5)
    looked_up = Runner(io.with_outputs(model, values[:1]), values[:1], fuse=False)({"i": ids})[0]
    steps = np.abs(TABLE_NUMBERS).max(1) / (2 ** (bits - 1) - 1)
    error = np.abs(looked_up.reshape(ROWS, WIDTH) - TABLE_NUMBERS).max(1)
    assert (error <= 0.51 * steps).all()


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS"])
@pytest.mark.parametrize("block", [None, 16, 48])
def test_four_bits_have_a_scale_per_block(preset: str, block: int | None) -> None:
    config = get_default_config(preset)
    options = {**config.extra_options, "TableBits": 4} | ({} if block is None else {"BlockSize": block})
    wide = {"t": normal(ROWS, 128), "w": normal(128, 8)}
    found = quantize(replace(config, extra_options=options), **wide)
    size = 32 if block == 48 else block or (128 if preset == "MATMUL_NBITS" else 32)  # 48 do not divide a row
    site = found.plan.sites["t"]
    assert (site.format.bits, site.format.axis, site.format.block) == (4, 1, size)
    assert {row.node: row.status for row in found.report.ledger}["look"] == "integer"
    held = sum(w.ByteSize() for w in found.model.graph.initializer)
    assert held < ROWS * 128 * (1 / 2 + 4 / size) + 4000
    model = io.load(found.model)
    ids = np.arange(ROWS).reshape(-1, 5)
    (rows,) = Runner(io.with_outputs(model, ["e"]), ["e"], fuse=False)({"i": ids})
    blocks = wide["t"].reshape(ROWS, -1, size)
    error = np.abs(rows.reshape(blocks.shape) - blocks).max(-1)
    assert (error <= 0.5001 * np.abs(blocks).max(-1) / 7).all()


def test_rows_without_whole_blocks_have_eight_bits() -> None:
    config = get_default_config("S8S8_AAWS")
    found = quantize(replace(config, extra_options={**config.extra_options, "TableBits": 4}), **NARROW | {"t": ODD})
    assert found.plan.sites["t"].format.bits == 8


def test_the_table_is_never_dequantized() -> None:
    """That would take 50 times as long as to look up what is asked for."""
    model = io.load(quantize("S8S8_AAWS").model)
    assert all(
        node.inputs[0].producer() is not None
        for node in model.graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].name.startswith("t_")
    )
    with executed_model(model) as executed:
        sizes = [v.const_value.size for v in executed.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert max(sizes) == ROWS


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        (BODY, NARROW),
        (BODY.replace("Gather (t, k)", "Gather <axis = 1> (u, j)"), NARROW | {"u": WIDE, "j": np.arange(20)}),
        (BODY + " m = ReduceMax <keepdims = 0> (y) z = Add (t, m)", {}),
        ("e = Gather (t, i) s = Unsqueeze (e, k) n = Tanh (s) y = MatMul (n, w)",
         {"t": normal(ROWS * WIDTH), "k": np.array([2]), "w": normal(1, 8)}),
    ],
    ids=["small", "by column", "read as a whole", "a vector"],
)  # fmt: skip
def test_other_constants_stay_float(body: str, numbers: dict[str, np.ndarray]) -> None:
    outputs = "float[N,5,8] y, float[M,K] z" if "z =" in body else "float[N,5,8] y"
    found = quantize("S8S8_AAWS", body, f"g (int64[N,5] i) => ({outputs})", **numbers)
    assert all(site.rule != TABLE for site in found.plan.sites.values())


@pytest.mark.parametrize(
    "changes", [{"nodes_to_exclude": ("look", "more")}, {"op_types_to_quantize": ("MatMul",)}, {"target": "qnn"}]
)
def test_tables_stay_float_where_that_is_asked_for(changes: dict[str, object]) -> None:
    config = QuantizationConfig(**changes, activation_type="uint8")
    assert all(site.rule != TABLE for site in quantize(config).plan.sites.values())


def test_a_neighbour_that_takes_integers_gets_them() -> None:
    """No scale per row then: rows go into the product as they are looked up."""
    start = get_default_config("S8S8_AAWS")
    config = replace(start, extra_options={**start.extra_options, "SmoothQuant": False})
    found = quantize(config, "e = Gather (t, i) y = MatMul (e, w)", t=normal(ROWS, WIDTH))
    assert found.plan.sites["t"].role == "constant"
    assert "Mul" not in {node.op_type for node in found.model.graph.node}


def test_what_protection_takes_out_leaves_tables_alone() -> None:
    plan = quantize("S8S8_AAWS").plan
    graph = io.load(text_model(f"{SIGNATURE} {{ {BODY} }}", **CONSTANTS)).graph
    left = tidied(graph, plan.without_named(["product"]), TARGETS["cpu"])
    assert dict(left.nodes) == {"look": ("t",)}
    assert not tidied(graph, plan.without_named(["product", "t"]), TARGETS["cpu"]).nodes


@pytest.mark.parametrize(
    ("override", "least"),
    [
        ({"quant_type": "uint8", "symmetric": False}, 30),
        ({"quant_type": "int16"}, 30),
        ({"quant_type": "int4"}, 15),
        ({"axis": 1}, 10),  # each column has one scale for small and large rows
    ],
)
def test_a_table_takes_the_format_that_it_is_given(override: dict[str, object], least: float) -> None:
    """In any format it runs; where that is not one scale per row around 0, all of it is dequantized first."""
    config = get_default_config("S8S8_AAWS")
    options = {**config.extra_options, "TensorQuantOverrides": {"t": [override]}}
    found = quantize(replace(config, extra_options=options))
    assert found.plan.sites["t"].format != quantize("S8S8_AAWS").plan.sites["t"].format
    assert min(found.report.sqnr.values()) > least
