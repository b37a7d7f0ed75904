"""Weight-only configurations, and `MatMulNBitsQuantizer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx import ConfigError, QuantizationConfig
from quark_onnx.ort import QuantFormat, matmul_nbits_quantizer, quantize
from quark_onnx.ort.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    GPTQWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
    RTNWeightOnlyQuantConfig,
    WeightOnlyQuantConfig,
)
from quark_onnx.ort.weight_only_lowering import Blocks, weight_only

TEXT = """g (float[4,32] x) => (float[4,16] y) {
    a = MatMul(x, w)  b = Add(a, c)  r = Relu(b)  d = MatMul(r, u)  y = Gemm(d, v, e)
}"""
SAMPLES = [{"x": normal(4, 32, seed=seed)} for seed in range(8)]


def model() -> onnx.ModelProto:
    sizes = {"w": normal(32, 64), "c": normal(64), "u": normal(64, 32), "v": normal(32, 16), "e": normal(16)}
    return text_model(TEXT, **sizes)


def ours(weight_type: str = "uint4", symmetric: bool = False, **fields: Any) -> QuantizationConfig:
    options = {"WeightsOnly": True, "WeightSymmetric": symmetric, **fields.pop("options", {"BlockSize": 128})}
    fields = {"op_types_to_quantize": ("MatMul",), "include_cle": False, **fields}
    return QuantizationConfig(weight_type=weight_type, extra_options=options, **fields)


TABLE: list[tuple[WeightOnlyQuantConfig, QuantizationConfig]] = [
    (DefaultWeightOnlyQuantConfig(), ours()),
    (DefaultWeightOnlyQuantConfig(32, True, bits=8), ours("int8", True, options={"BlockSize": 32})),
    (DefaultWeightOnlyQuantConfig(bits=2), ours("uint2")),
    (DefaultWeightOnlyQuantConfig(channel_wised_quantize=True), ours(per_channel=True, options={})),
    (
        DefaultWeightOnlyQuantConfig(op_types_to_quantize=("MatMul", "Gather"), quant_axes=(("MatMul", 0),)),
        ours(op_types_to_quantize=("Gather", "MatMul")),
    ),
    (RTNWeightOnlyQuantConfig(), ours("int4", True, options={"BlockSize": 64})),
    (
        RTNWeightOnlyQuantConfig(customized_weight_config={"a*": {"bits": 8, "scheme": "asym"}}),
        ours(
            "int4",
            True,
            options={
                "BlockSize": 64,
                "LayerTypes": {"a[*]": {"weight_type": "uint8", "symmetric": False, "BlockSize": 64}},
            },
        ),
    ),
    (HQQWeightOnlyQuantConfig(32), ours(options={"BlockSize": 32, "WeightCalibrateMethod": "HQQ"})),
    (
        GPTQWeightOnlyQuantConfig(SAMPLES, percdamp=0.05, actorder=True),
        ours(
            "int4",
            True,
            include_fast_ft=True,
            options={
                "BlockSize": 64,
                "FastFinetune": {"OptimAlgorithm": "gptq", "ActOrder": True, "Ridge": 0.05, "ScaleSearch": False},
            },
        ),
    ),
]


@pytest.mark.parametrize(("given", "expected"), TABLE)
def test_configurations(given: WeightOnlyQuantConfig, expected: QuantizationConfig) -> None:
    assert weight_only(given, Blocks(64, symmetric=True)) == expected


REFUSED: list[tuple[WeightOnlyQuantConfig, str]] = [
    (KQuantWeightOnlyQuantConfig(), "KQuantWeightOnlyQuantConfig has no counterpart: take HQQ"),
    (
        DefaultWeightOnlyQuantConfig(quant_format=QuantFormat.QOperator),
        "QOperator is not written; take",
    ),
    (DefaultWeightOnlyQuantConfig(accuracy_level=4), "'session.qdq_matmulnbits_accuracy_level'"),
    (DefaultWeightOnlyQuantConfig(bits=3), "bits must be 2, 4 or 8, not 3"),
    (DefaultWeightOnlyQuantConfig(quant_axes=(("MatMul", 1),)), "not 1 of 'MatMul'"),
    (DefaultWeightOnlyQuantConfig(op_types_to_quantize=("Matmul",)), "did you mean 'MatMul'"),
    (RTNWeightOnlyQuantConfig(ratios={"a": 0.9}), "ratios"),
    (RTNWeightOnlyQuantConfig(customized_weight_config={"a": {"bit": 8}}), "unknown key 'bit'; did you mean 'bits'"),
    (RTNWeightOnlyQuantConfig(customized_weight_config={"a": {"scheme": "s"}}), "scheme must be 'sym' or 'asym'"),
    (RTNWeightOnlyQuantConfig(customized_weight_config={"a": {"bits": 5}}), "bits must be 2, 4 or 8, not 5"),
    (GPTQWeightOnlyQuantConfig(block_size=64), "that of MatMulNBitsQuantizer"),
    (GPTQWeightOnlyQuantConfig(perchannel=False), "perchannel=False"),
    (HQQWeightOnlyQuantConfig(axis=0), "axis of HQQ"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_is_refused(given: WeightOnlyQuantConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weight_only(given)


def test_a_misspelt_attribute_is_refused() -> None:
    config = DefaultWeightOnlyQuantConfig()
    with pytest.raises(ConfigError, match="has no 'blocksize'; did you mean 'block_size'"):
        config.blocksize = 32  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithm", [None, HQQWeightOnlyQuantConfig(16), GPTQWeightOnlyQuantConfig(SAMPLES)])
def test_weights_of_few_bits(algorithm: WeightOnlyQuantConfig | None, tmp_path: Path) -> None:
    """Of MatMul, also where preparing makes a Gemm of it; no Gemm of the user's, and not what is excluded."""
    quantizer = MatMulNBitsQuantizer(model(), block_size=16, nodes_to_exclude=["MatMul_d"], algo_config=algorithm)
    with pytest.raises(ConfigError, match=r"call process\(\) before"):
        _ = quantizer.model
    result = quantizer.process()
    assert result.plan.nodes.keys() == {"MatMul_a"}
    path = tmp_path / "int4.onnx"
    quantizer.model.save_model_to_file(str(path), True)
    assert [*tmp_path.glob("int4*")] != [path]
    codes = {onnx.TensorProto.UINT4}
    assert {i.data_type for i in onnx.load(path).graph.initializer} & {onnx.TensorProto.UINT4} == codes
    quantizer.model.save_model_to_file(path)
    assert [*tmp_path.glob("int4*")] == [path]
    assert path.read_bytes() == quantizer.model.model.SerializeToString()


def test_they_are_what_quantize_takes_too(tmp_path: Path) -> None:
    result = quantize(model(), tmp_path / "int4.onnx", DefaultWeightOnlyQuantConfig(16, is_symmetric=True))
    assert result.plan.nodes.keys() == {"MatMul_a", "MatMul_d"}
    assert result.plan.sites["w"].format.dtype == "int4"


def test_single_nodes_have_other_types() -> None:
    custom = {"MatMul_d": {"bits": 8, "group_size": 32, "scheme": "sym"}}
    algorithm = RTNWeightOnlyQuantConfig(customized_weight_config=custom)
    sites = MatMulNBitsQuantizer(model(), block_size=16, algo_config=algorithm).process().plan.sites
    formats = {tensor: (site.format.dtype, site.format.block) for tensor, site in sites.items()}
    assert formats == {"w": ("uint4", 16), "u": ("int8", 32)}


def test_blocks_of_algorithms_that_do_not_say_them() -> None:
    quantizer = MatMulNBitsQuantizer(model(), block_size=64, is_symmetric=True, algo_config=RTNWeightOnlyQuantConfig())
    assert quantizer.config == ours("int4", True, options={"BlockSize": 64})


@pytest.mark.parametrize(
    ("algorithm", "beside"),
    [
        (HQQWeightOnlyQuantConfig(32), {"bits": 8}),
        (HQQWeightOnlyQuantConfig(32), {"block_size": 64}),
        (HQQWeightOnlyQuantConfig(32), {"is_symmetric": True}),
        (RTNWeightOnlyQuantConfig(), {"bits": 8}),
        (GPTQWeightOnlyQuantConfig(), {"accuracy_level": 4}),
    ],
)
def test_what_has_no_effect_beside_an_algorithm(algorithm: WeightOnlyQuantConfig, beside: dict[str, Any]) -> None:
    [(name, value)] = beside.items()
    with pytest.raises(ConfigError, match=f"{name}={value!r} has no effect beside {type(algorithm).__name__}"):
        MatMulNBitsQuantizer(model(), **beside, algo_config=algorithm)
    MatMulNBitsQuantizer(model(), block_size=32, bits=4, algo_config=algorithm)  # as it says, or what it leaves open


def test_nodes_to_include_are_refused() -> None:
    with pytest.raises(ConfigError, match="nodes_to_include adds nodes of other types: name their types"):
        MatMulNBitsQuantizer(model(), nodes_to_include=["y"])


def test_what_is_exported() -> None:
    assert all(hasattr(matmul_nbits_quantizer, name) for name in matmul_nbits_quantizer.__all__)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"algo_config": 1}, "algo_config must be a configuration such as HQQ"),
        ({"quant_axes": 3}, "quant_axes must be a dictionary, not 3"),
        ({"op_types_to_quantize": "MatMul"}, "must be a list of names, not 'MatMul'"),
        ({"algo_config": RTNWeightOnlyQuantConfig(customized_weight_config={"a": 3})}, r"\['a'\] must be a dictionary"),
        ({"algo_config": RTNWeightOnlyQuantConfig(customized_weight_config=[1])}, "config must be a dictionary"),
        ({"algo_config": RTNWeightOnlyQuantConfig(ratios=np.ones(2))}, "ratios: no share"),
    ],
)
def test_values_of_wrong_types(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        MatMulNBitsQuantizer(model(), **given)


def test_a_file_needs_a_name() -> None:
    quantizer = MatMulNBitsQuantizer(model(), block_size=16)
    quantizer.process()
    with pytest.raises(ConfigError, match="give its name as output_path"):
        quantizer.model.save_model_to_file(None)  # type: ignore[arg-type]
