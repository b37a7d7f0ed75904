"""What improves a model, in Quark's second API: each algorithm and its settings, as fields and options of the first.

A setting that is None is as this package has it; any value that is given counts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.fast_finetune import TUNABLE, quark_key
from quark_onnx.core.settings.mixed_precision import AUTO
from quark_onnx.ort.strict_fields import StrictFields
from quark_onnx.quark.matmul_weights import Changes
from quark_onnx.quark.specs import QLayerConfig

_KEYS = {"output_qdq": "OutputQDQ", "use_gds": "UseGDS", "mse": "MSE"}
"""Where Quark's key has more capitals."""


@dataclass(eq=False)
class AlgoConfig(StrictFields):
    """Base of the algorithms."""

    name: ClassVar[str] = ""

    def changed(self) -> dict[str, Any]:
        """Settings that are not the default."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        fresh = {entry.name: _default(entry) for entry in fields(self)}
        return {n: v for n, v in values.items() if type(v) is not type(fresh[n]) or v != fresh[n]}

    def given(self) -> dict[str, Any]:
        """The same under Quark's keys of `extra_options`."""
        return {_KEYS.get(name, quark_key(name)): value for name, value in self.changed().items()}

    @abstractmethod
    def asks(self) -> Changes:
        """The fields and extra options of the first API that it stands for."""


def _default(entry: Any) -> Any:
    return entry.default_factory() if callable(entry.default_factory) else entry.default


@dataclass(eq=False)
class _FastFinetuneConfig(AlgoConfig):
    """Settings of fine-tuning; see docs/fast_finetune.md."""

    optim_device: str = "cpu"
    infer_device: str = "cpu"
    fixed_seed: int = 1705472343
    data_size: int = 1_000_000_000
    batch_size: int | None = None
    num_batches: int = 1
    num_iterations: int | None = None
    learning_rate: float | None = None
    early_stop: bool | None = None
    output_index: int = 0
    lr_adjust: tuple[float, float] | None = None
    target_op_type: Sequence[str] = field(default_factory=lambda: [*TUNABLE])
    selective_update: bool = False
    update_bias: bool | None = None
    output_qdq: bool = False
    drop_ratio: float = 1.0
    mem_opt_level: int = 1
    cache_dir: str | None = None
    log_period: int = 100
    ref_model_path: str | None = None
    dynamic_batch: bool = False
    parallel: bool = False
    reg_param: float = 0.01
    beta_range: tuple[float, float] = (20, 2)
    warm_start: float = 0.2
    select_max_mem_layer: bool = False
    num_workers: int = 1
    pin_memory: bool = False
    use_gds: bool = False

    def asks(self) -> Changes:
        return {"include_fast_ft": True}, {"FastFinetune": {"OptimAlgorithm": self.name, **self.given()}}


@dataclass(eq=False)
class AdaRoundConfig(_FastFinetuneConfig):
    """Every weight is rounded up or down, as the output of its layer likes it."""

    name: ClassVar[str] = "adaround"


@dataclass(eq=False)
class AdaQuantConfig(_FastFinetuneConfig):
    """Weights are trained. A `learning_rate` is in units of the weight, as Quark's."""

    name: ClassVar[str] = "adaquant"


@dataclass(eq=False)
class CLEConfig(AlgoConfig):
    """Cross-layer equalization."""

    cle_balance_method: str = "max"
    cle_steps: int | None = None
    cle_weight_threshold: float = 0.5
    cle_scale_append_bias: bool = True
    cle_scale_use_threshold: bool = True
    cle_total_layer_diff_threshold: float = 1.9e-7

    name: ClassVar[str] = "cle"

    def asks(self) -> Changes:
        return {"include_cle": True}, {key.replace("Cle", "CLE", 1): value for key, value in self.given().items()}


@dataclass(eq=False)
class SmoothQuantConfig(AlgoConfig):
    """Range moves from activations into the weights of products, at all of them."""

    alpha: float = 0.5

    name: ClassVar[str] = "smooth_quant"

    def asks(self) -> Changes:
        return {"include_sq": True}, {"SmoothAlpha": self.alpha}


@dataclass(eq=False)
class BiasCorrectionConfig(AlgoConfig):
    """Biases make up for the mean error of their layer; where layers are fine-tuned, that does it."""

    name: ClassVar[str] = "bias_correction"

    def asks(self) -> Changes:
        return {}, {"BiasCorrection": True}


@dataclass(eq=False)
class GPTQConfig(AlgoConfig):
    """Weights alone, those of products rounded by GPTQ."""

    bits: int = 8
    block_size: int = 128
    group_size: int = -1
    perc_damp: float | None = None
    act_order: bool | None = None
    per_channel: bool = False
    mse: bool | None = None
    weight_symmetric: bool = True

    name: ClassVar[str] = "gptq"

    def asks(self) -> Changes:
        return {}, {"UseGPTQ": True, "GPTQParams": self.given()}


@dataclass(eq=False)
class QuarotConfig(AlgoConfig):
    """Rotations: refused."""

    r_matrix_dim: int = 4096
    use_random_had: bool = False
    r_config_path: str | None = None

    name: ClassVar[str] = "quarot"

    def asks(self) -> Changes:
        return {"include_rotation": True}, {}


@dataclass(eq=False)
class AutoMixprecisionConfig(AlgoConfig):
    """Layers move to other types as far as the outputs allow or need it."""

    target_layer_config: QLayerConfig | Mapping[str, Any]
    target_op_type: Sequence[str] = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    subgraph_json: str | Path | None = None
    include_layers: Sequence[str] | None = None
    exclude_layers: Sequence[str] | None = None
    data_size: int | None = None
    metric_output_index: int | None = None
    metric_distance_fn: Callable[..., float] | None = None
    metric_evaluate_fn: Callable[..., float] | None = None
    metric_default: str | None = None
    metric_threshold: float | str | None = AUTO
    metric_optimize_object: str | None = None
    sensitivity_cache_file: str | Path | None = None
    worker_num: int = 1
    dual_quant_nodes: bool = False
    no_input_qdq_shared: bool = False
    shared_param_mode: str | None = None

    name: ClassVar[str] = "auto_mixprecision"

    def asks(self) -> Changes:
        return {"include_auto_mp": True}, {"AutoMixprecision": self.given()}


def asked_by(algorithms: Sequence[AlgoConfig]) -> Changes:
    """What all of them together stand for.

    Raises:
        ConfigError: one is no algorithm, or two exclude each other.
    """
    kinds: dict[str, AlgoConfig] = {}
    fields_asked: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for one in algorithms:
        if not isinstance(one, AlgoConfig):
            raise ConfigError(f"algo_config must hold algorithms such as AdaRoundConfig(), not {one!r}")
        if one.name in kinds:
            raise ConfigError(f"algo_config: {type(one).__name__} is there twice")
        kinds[one.name] = one
        more, settings = one.asks()
        fields_asked |= more
        options |= settings
    if {"adaround", "adaquant"} <= kinds.keys():
        raise ConfigError("algo_config: AdaRoundConfig and AdaQuantConfig exclude each other; leave one of them out")
    return fields_asked, options
