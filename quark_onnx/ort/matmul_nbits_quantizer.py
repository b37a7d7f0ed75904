"""`MatMulNBitsQuantizer`: weights of few bits, made by `process()`, written by `model.save_model_to_file()`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quark_onnx.core.atomic_files import free_output
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.presets import Config
from quark_onnx.graph import ModelProto, io
from quark_onnx.ort.model_nodes import Source
from quark_onnx.ort.quant_config import Names
from quark_onnx.ort.quant_utils import QuantFormat
from quark_onnx.ort.weight_only import (
    Axes,
    DefaultWeightOnlyQuantConfig,
    GPTQWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    RTNWeightOnlyQuantConfig,
    WeightOnlyQuantConfig,
)
from quark_onnx.ort.weight_only_lowering import Blocks, weight_only
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.result import Result

__all__ = [
    "DefaultWeightOnlyQuantConfig",
    "GPTQWeightOnlyQuantConfig",
    "HQQWeightOnlyQuantConfig",
    "KQuantWeightOnlyQuantConfig",
    "MatMulNBitsQuantizer",
    "QuantizedModel",
    "RTNWeightOnlyQuantConfig",
    "WeightOnlyQuantConfig",
]


@dataclass(frozen=True)
class QuantizedModel:
    """What `MatMulNBitsQuantizer.model` is after `process()`."""

    source: Source
    result: Result

    @property
    def model(self) -> ModelProto:
        """The quantized model."""
        return self.result.model

    def save_model_to_file(self, output_path: str | Path, use_external_data_format: bool = False) -> None:
        """Write the model, its weights beside it if that is asked for.

        Raises:
            ConfigError, ResourceError: the file cannot be written, or is the input model.
        """
        output = free_output(self.source, output_path)
        if output is None:
            raise ConfigError("save_model_to_file writes a file: give its name as output_path")
        evidence = self.result.evidence
        io.save(evidence.quantized, output, source=evidence.model, external=use_external_data_format)


class MatMulNBitsQuantizer:
    """Quantizes constant weights of MatMul (and tables of Gather) to 2, 4 or 8 bits.

    Parameters from `bits` on are those of `DefaultWeightOnlyQuantConfig`. Beside an `algo_config` they have no place,
    but for blocks and symmetry where that has none.

    Raises:
        ConfigError: a parameter that has no counterpart.
    """

    def __init__(
        self,
        model: Source,
        bits: int = 4,
        block_size: int = 128,
        is_symmetric: bool = False,
        accuracy_level: int | None = None,
        nodes_to_exclude: Names = None,
        nodes_to_include: Names = None,
        quant_format: Any = QuantFormat.QDQ,
        op_types_to_quantize: Names = None,
        quant_axes: Axes = None,
        channel_wised_quantize: bool = False,
        algo_config: WeightOnlyQuantConfig | None = None,
    ) -> None:
        if nodes_to_include:
            raise ConfigError(
                "nodes_to_include adds nodes of other types: name their types in op_types_to_quantize, and the nodes "
                "of that type that are to stay float in nodes_to_exclude"
            )
        self.source = model
        asked = DefaultWeightOnlyQuantConfig(
            block_size,
            is_symmetric,
            accuracy_level,
            quant_format,
            op_types_to_quantize,
            quant_axes,
            bits,
            channel_wised_quantize,
        )
        self.algo_config = asked if algo_config is None else algo_config
        self.config = weight_only(self.algo_config, Blocks(block_size, is_symmetric), nodes_to_exclude)
        if algo_config is not None:
            _refuse_beside(algo_config, asked)
        self._done: QuantizedModel | None = None

    def process(self) -> Result:
        """Quantize; `model` holds what comes out.

        Raises:
            ModelError, DataError: see each.
        """
        quantizer = ModelQuantizer(Config(self.config))
        result = quantizer.quantize_model(self.source, calibration_data_reader=self.algo_config.data)
        self._done = QuantizedModel(self.source, result)
        return result

    @property
    def model(self) -> QuantizedModel:
        """The quantized model.

        Raises:
            ConfigError: `process()` was not called.
        """
        if self._done is None:
            raise ConfigError("nothing is quantized yet: call process() before")
        return self._done


def _refuse_beside(config: WeightOnlyQuantConfig, asked: DefaultWeightOnlyQuantConfig) -> None:
    """Nothing, if all that is asked for beside a configuration has an effect, or is what that says."""
    outside = ("block_size", "is_symmetric") if config.algorithm in ("RTN", "GPTQ") else ()
    for name, usual in vars(DefaultWeightOnlyQuantConfig()).items():
        value = getattr(asked, name)
        if name not in outside and value not in (usual, getattr(config, name, usual)):
            raise ConfigError(
                f"{name}={value!r} has no effect beside {type(config).__name__}: set it there, or nowhere"
            )
