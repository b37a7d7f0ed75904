"""The configuration of Quark's first API: mutable, its fields and options under their names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.ort import CalibrationMethod, QuantFormat, QuantType
from quark_onnx.ort.strict_fields import StrictFields


@dataclass
class QuantizationConfig(StrictFields):
    """Fields and defaults as in Quark; docs/porting_quark.md says what becomes of each.

    Values are read when a `ModelQuantizer` uses them. `include_sq` is None by default: products are smoothed where that
    is seen to help. True smooths all of them by SmoothAlpha, False none.
    """

    calibrate_method: Any = CalibrationMethod.MinMax
    quant_format: Any = QuantFormat.QDQ
    activation_type: Any = QuantType.QInt8
    weight_type: Any = QuantType.QInt8
    input_nodes: list[str] = field(default_factory=list)
    output_nodes: list[str] = field(default_factory=list)
    op_types_to_quantize: list[str] = field(default_factory=list)
    nodes_to_quantize: list[str] = field(default_factory=list)
    extra_op_types_to_quantize: list[str] = field(default_factory=list)
    nodes_to_exclude: list[str] = field(default_factory=list)
    subgraphs_to_exclude: list[Any] = field(default_factory=list)
    specific_tensor_precision: bool = False
    execution_providers: list[str] = field(default_factory=lambda: ["CPUExecutionProvider"])
    per_channel: bool = False
    reduce_range: bool = False
    optimize_model: bool = True
    use_dynamic_quant: bool = False
    use_external_data_format: bool = False
    convert_fp16_to_fp32: bool = False
    convert_nchw_to_nhwc: bool = False
    include_sq: bool | None = None
    include_rotation: bool = False
    include_cle: bool = True
    include_auto_mp: bool = False
    include_fast_ft: bool = False
    enable_npu_cnn: bool = False
    enable_npu_transformer: bool = False
    debug_mode: bool = False
    crypto_mode: bool = False
    print_summary: bool = True
    ignore_warnings: bool = True
    log_severity_level: int | None = None
    extra_options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Config(StrictFields):
    """The configuration that holds for the whole model."""

    global_quant_config: QuantizationConfig

    def __post_init__(self) -> None:
        if not isinstance(self.global_quant_config, QuantizationConfig):
            raise ConfigError(
                "global_quant_config must be a QuantizationConfig of quark_onnx.quark, e.g. what its "
                f"get_default_config('XINT8') returns, not {type(self.global_quant_config).__name__}; the frozen one "
                "of quark_onnx is for its own ModelQuantizer"
            )
