"""quark_onnx: float ONNX models in, integer QDQ models that keep their accuracy out."""

from quark_onnx.core.errors import ConfigError, DataError, ModelError, PlanError, QuarkError, ResourceError
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.fast_finetune import AdaQuant, AdaRound
from quark_onnx.core.settings.presets import PRESETS, Config, get_default_config
from quark_onnx.core.version import VERSION as __version__  # noqa: F401
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.progress import progress_bar
from quark_onnx.result import Report, Result

__all__ = [
    "PRESETS",
    "AdaQuant",
    "AdaRound",
    "Config",
    "ConfigError",
    "DataError",
    "ModelError",
    "ModelQuantizer",
    "Plan",
    "PlanError",
    "QuantizationConfig",
    "QuarkError",
    "Report",
    "ResourceError",
    "Result",
    "get_default_config",
    "progress_bar",
]
