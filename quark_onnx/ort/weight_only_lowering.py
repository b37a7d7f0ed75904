"""From the weight-only configurations to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.ort.extra_options import says
from quark_onnx.ort.lowering import exact, listed, refuse_operators
from quark_onnx.ort.quant_config import Names
from quark_onnx.ort.weight_only import WeightOnlyQuantConfig

TYPES = ("MatMul", "Gather")
AXES = {"MatMul": 0, "Gather": 1}
BITS = (2, 4, 8)

_CUSTOM = "customized_weight_config"
_KEYS = ("bits", "group_size", "scheme")

Fields = dict[str, Any]


@dataclass(frozen=True)
class Blocks:
    """What a quantizer says for algorithms that do not say it themselves."""

    size: int = 128
    symmetric: bool = False


def weight_only(
    config: WeightOnlyQuantConfig,
    blocks: Blocks = Blocks(),
    nodes_to_exclude: Names = None,
    *,
    external: bool = False,
) -> QuantizationConfig:
    """Our configuration of a weight-only quantization.

    Args:
        external: weights are written beside the model.

    Raises:
        ConfigError: a parameter that has no counterpart.
    """
    if not isinstance(config, WeightOnlyQuantConfig):
        raise ConfigError(f"algo_config must be a configuration such as HQQWeightOnlyQuantConfig(), not {config!r}")
    if config.algorithm not in _ALGORITHMS:
        raise ConfigError(
            f"{type(config).__name__} has no counterpart: take HQQWeightOnlyQuantConfig, which needs no data either, "
            "or GPTQWeightOnlyQuantConfig"
        )
    values: Fields = vars(config)
    refuse_operators(values["quant_format"])
    fields = _ALGORITHMS[config.algorithm](values, blocks)
    options = {"WeightsOnly": True, **fields.pop("extra_options")}
    types = tuple(sorted(listed("op_types_to_quantize", values["op_types_to_quantize"]))) or ("MatMul",)
    for name in types:
        if name not in TYPES:
            raise ConfigError(f"op_types_to_quantize: {name!r} has no weights of few bits{nearest(name, TYPES)}")
    return QuantizationConfig(
        op_types_to_quantize=types,
        nodes_to_exclude=exact("nodes_to_exclude", nodes_to_exclude),
        include_cle=False,
        use_external_data_format=external,
        extra_options=options,
        **fields,
    )


def _type(bits: int, *, symmetric: bool) -> str:
    if bits not in BITS:
        raise ConfigError(f"bits must be 2, 4 or 8, not {bits!r}")
    return f"{'' if symmetric else 'u'}int{bits}"


def _default(values: Fields, blocks: Blocks) -> Fields:
    level, symmetric = values["accuracy_level"], values["is_symmetric"]
    refuse_level(level)
    _refuse_axes(values["quant_axes"])
    channels = values["channel_wised_quantize"]
    return {
        "weight_type": _type(values["bits"], symmetric=symmetric),
        "per_channel": channels,
        "extra_options": {"WeightSymmetric": symmetric, **({} if channels else {"BlockSize": values["block_size"]})},
    }


def _nearest(values: Fields, blocks: Blocks) -> Fields:
    if not says(values["ratios"], (None, {})):
        raise ConfigError("ratios: no share of a block is cut off; take HQQWeightOnlyQuantConfig, which fits its ends")
    layers = {
        exact(_CUSTOM, [name])[0]: _layer(f"{_CUSTOM}[{name!r}]", asked, blocks)
        for name, asked in _dictionary(_CUSTOM, values[_CUSTOM] or {}).items()
    }
    return _in_blocks(blocks, **({"LayerTypes": layers} if layers else {}))


def _dictionary(where: str, given: Any) -> dict[str, Any]:
    """What is given, as a dictionary or as pairs."""
    try:
        return dict(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} must be a dictionary, not {given!r}") from error


def _layer(where: str, asked: Mapping[str, Any], blocks: Blocks) -> dict[str, Any]:
    """What LayerTypes has for one node."""
    told: Fields = {"bits": 4, "group_size": blocks.size, "scheme": "sym" if blocks.symmetric else "asym"}
    told |= _dictionary(where, asked)
    if strange := [key for key in told if key not in _KEYS]:
        raise ConfigError(f"{where}: unknown key {strange[0]!r}{nearest(str(strange[0]), _KEYS)}")
    if told["scheme"] not in ("sym", "asym"):
        raise ConfigError(f"{where}: scheme must be 'sym' or 'asym', not {told['scheme']!r}")
    symmetric = told["scheme"] == "sym"
    return {
        "weight_type": _type(told["bits"], symmetric=symmetric),
        "symmetric": symmetric,
        "BlockSize": told["group_size"],
    }


def _in_blocks(blocks: Blocks, **options: Any) -> Fields:
    return {
        "weight_type": _type(4, symmetric=blocks.symmetric),
        "extra_options": {"WeightSymmetric": blocks.symmetric, "BlockSize": blocks.size, **options},
    }


def _gptq(values: Fields, blocks: Blocks) -> Fields:
    if values["block_size"] != 128:
        raise ConfigError(
            "block_size of GPTQ is how many columns are worked on at once, which changes no result here; blocks of "
            "weights are that of MatMulNBitsQuantizer"
        )
    if values["perchannel"] is not True:
        raise ConfigError("perchannel=False: each block has a scale of its own; leave it out")
    tuning = {
        "OptimAlgorithm": "gptq",
        "ActOrder": values["actorder"],
        "Ridge": values["percdamp"],
        "ScaleSearch": values["mse"],
    }
    return {"include_fast_ft": True, **_in_blocks(blocks, FastFinetune=tuning)}


def _hqq(values: Fields, blocks: Blocks) -> Fields:
    _refuse_axes(values["quant_axes"])
    if values["axis"] != 1:
        raise ConfigError(f"axis of HQQ: blocks lie along the input axis, which is 1; not {values['axis']!r}")
    return {
        "weight_type": _type(values["bits"], symmetric=False),
        "extra_options": {
            "WeightSymmetric": False,
            "BlockSize": values["block_size"],
            "WeightCalibrateMethod": "HQQ",
        },
    }


_ALGORITHMS: dict[str, Callable[[Fields, Blocks], Fields]] = {
    "DEFAULT": _default,
    "RTN": _nearest,
    "GPTQ": _gptq,
    "HQQ": _hqq,
}


def refuse_level(level: int | None) -> None:
    """Nothing, if no level is given.

    Raises:
        ConfigError: one is.
    """
    if level is not None:
        raise ConfigError(
            f"accuracy_level={level!r} is no part of a model of standard operators: set the session option "
            "'session.qdq_matmulnbits_accuracy_level' where the model runs, and leave it out"
        )


def _refuse_axes(given: Any) -> None:
    for name, axis in _dictionary("quant_axes", given or ()).items():
        if AXES.get(name) != axis:
            raise ConfigError(
                f"quant_axes: blocks lie along axis 0 of MatMul and 1 of Gather, not {axis!r} of {name!r}"
            )
