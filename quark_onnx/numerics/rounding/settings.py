"""How a layer is tuned: the scale of its weight, the rounding, the bias."""

from __future__ import annotations

from dataclasses import dataclass

from quark_onnx.numerics.rounding.scale_search import FACTORS


@dataclass(frozen=True)
class TuningSettings:
    """How to tune. The fields are those of `core.settings.fast_finetune`, and

    method    "nearest" or one of `methods.METHODS`
    absolute  learning rates are in units of the weight, and are divided by the mean scale
    batch     positions in a mini-batch of the objective "sampled"
    factors   scales to try, as parts of the plan's
    fit_scale   the scale may be any number, and be fitted to codes
    act_order   of GPTQ: the inputs with the largest mean square first
    quick     find by other means what iterations would learn, see `methods`
    """

    method: str = "adaround"
    num_iterations: int = 500
    learning_rate: float = 0.1
    absolute: bool = False
    lr_adjust: tuple[float, float] | None = None
    early_stop: bool = True
    window: int | None = None
    reg_param: float = 0.01
    beta_range: tuple[float, float] = (20.0, 2.0)
    warm_start: float = 0.2
    objective: str = "moments"
    batch: int = 256
    seed: tuple[int, ...] = (0,)
    scale_search: bool = True
    factors: tuple[float, ...] = FACTORS
    fit_scale: bool = True
    quick: bool = False
    polish: int = 5
    act_order: bool = True
    ridge: float = 0.03
    update_bias: bool = True
