"""What fast fine-tuning does with the weights of each layer: `AdaRound`, `AdaQuant` or `GPTQ`, and settings.

Names are those of AMD Quark (`NumIterations` in its dictionaries is `num_iterations` here); docs/fast_finetune.md
has the table of all of them, with AIMET's names and what is refused. All work for weights of 2 to 16 bits.
`RangeLearning` is for simulations: ranges are learned with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.checked_fields import choice, field, flag, optional, pair, real, subset, whole

TUNABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LayerNormalization", "InstanceNormalization")
"""Operator types that can be tuned."""


@dataclass(frozen=True)
class FastFinetune:
    """What all methods have in common. Make an `AdaRound`, `AdaQuant` or `GPTQ`: the class is the method.

    data_size         use at most this many calibration samples; None: all
    batch_size        samples per iteration with objective "sampled", see `batch_rows`; no effect with "moments"
    num_batches       iterations in one window of the early stop; 1: a tenth of num_iterations
    num_iterations    steps of the optimizer per layer; None: see `steps`
    learning_rate     Adam's; AdaRound: of the rounding variable; AdaQuant: see `AdaQuant`
    early_stop        end a layer when a window brings nothing; the best state is what is kept, also without this
    lr_adjust         (threshold, rate): layers whose mean squared output error is above threshold start at this rate
    target_op_type    tune only these operator types
    selective_update  keep a layer only if the whole model's outputs get no worse (held-out error always decides)
    update_bias       tune the bias too
    drop_ratio        share of the input's elements that come from the quantized model, the rest from the float one
    fixed_seed        of every random choice
    parallel          tune all layers against the model as it was before, not one after the other
    scale_search      choose each weight scale by output error, once, before rounding; False: the plan's scale
    polish            sweeps of coordinate descent over the codes afterwards
    objective         "moments": exact error of the linear output over all positions kept, from second moments;
                      "sampled": error after the activation on random positions
    positions         output positions of a layer that are kept, over all samples
    holdout           share of the samples that decide whether a layer is kept, and are not trained on
    memory_limit      bytes of activations in memory, beyond which they lie in a temporary file; None: 256 MiB
    ridge             share of the diagonal of the second moments that is added to it, against too few samples
    time_limit        seconds after which tuning ends, and what is left is rounded to the nearest; None: when it is done

    Raises:
        ConfigError: a field is out of its range.
    """

    data_size: int | None = field(None, optional(whole(1)))
    batch_size: int = field(32, whole(1))
    num_batches: int = field(1, whole(1))
    num_iterations: int | None = field(None, optional(whole(1)))
    learning_rate: float = field(0.1, real(above=0))
    early_stop: bool = field(True, flag)
    lr_adjust: tuple[float, float] | None = field(None, optional(pair(real(0), real(above=0))))
    target_op_type: tuple[str, ...] = field(TUNABLE, subset(TUNABLE))
    selective_update: bool = field(False, flag)
    update_bias: bool = field(True, flag)
    drop_ratio: float = field(1.0, real(0, 1))
    fixed_seed: int = field(1705472343, whole(0, 2**32 - 1))
    parallel: bool = field(False, flag)
    scale_search: bool = field(True, flag)
    polish: int = field(0, whole(0))
    objective: str = field("moments", choice(("moments", "sampled")))
    positions: int = field(20000, whole(1))
    holdout: float = field(0.2, real(0.01, 0.9))
    memory_limit: int | None = field(None, optional(whole(2**20)))
    ridge: float = field(0.03, real(0, 1))
    time_limit: float | None = field(None, optional(real(above=0)))

    algorithm: ClassVar[str] = ""
    """The value of `OptimAlgorithm`."""

    def __post_init__(self) -> None:
        if not self.algorithm:
            raise ConfigError("FastFinetune is the base of the methods; make an AdaRound, AdaQuant or GPTQ")
        for entry in fields(self):
            name = f"{entry.name} ({quark_key(entry.name)})"
            object.__setattr__(self, entry.name, entry.metadata["check"](name, getattr(self, entry.name)))

    @property
    def seed(self) -> int:
        """`fixed_seed`, by its usual name."""
        return self.fixed_seed

    @property
    def window(self) -> int | None:
        """Iterations between two looks of the early stop; None: a tenth of all."""
        return self.num_batches if self.num_batches > 1 else None

    @property
    def quick(self) -> bool:
        """Whether the rounding may be found by what brings as much as iterations do, and takes less time."""
        return False

    def steps(self, bits: int) -> int:
        """Iterations for weights of so many bits: where roundings are coarse, more of them are worth a second look."""
        return self.num_iterations or (500 if bits >= 8 else 1500)

    @property
    def rate_is_absolute(self) -> bool:
        """Whether learning rates are in units of the weight, to be divided by the layer's mean scale."""
        return False

    def batch_rows(self, rows: int, samples: int) -> int:
        """Positions per iteration when `rows` of them were kept from `samples` samples: as many as `batch_size` has."""
        return min(rows, max(1, round(self.batch_size * rows / samples)))

    def to_dict(self) -> dict[str, Any]:
        """Quark's dictionary, with what differs from the default; `from_quark` reads it back to an equal object."""
        changed = {
            quark_key(entry.name): getattr(self, entry.name)
            for entry in fields(self)
            if getattr(self, entry.name) != entry.default
        }
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}
        return {"OptimAlgorithm": self.algorithm, **plain}


@dataclass(frozen=True)
class AdaRound(FastFinetune):
    """Learns for every weight whether it is rounded up or down (Nagel et al. 2020).

    reg_param   weight of the regularizer 1 − |2h − 1|^β that drives the soft roundings h to 0 or 1
    beta_range  β goes from the first to the second along a cosine
    warm_start  part of the iterations before the regularizer starts
    The rest: `FastFinetune`.

    Where neither num_iterations nor another setting of the iterations is given, 8 bits and more have none: coordinate
    descent reaches the same error of a layer. Below, GPTQ and a fitted scale come before them, and 300 are enough.
    """

    reg_param: float = field(0.01, real(0))
    beta_range: tuple[float, float] = field((20.0, 2.0), pair(real(above=0), real(above=0)))
    warm_start: float = field(0.2, real(0, below=1))
    polish: int = field(5, whole(0))

    algorithm: ClassVar[str] = "adaround"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta_range[0] < self.beta_range[1]:
            raise ConfigError(f"beta_range (BetaRange) must go down, e.g. (20, 2), not {self.beta_range}")

    @property
    def quick(self) -> bool:
        """Unless a setting is given that has no meaning without iterations."""
        given = {entry.name for entry in fields(self) if getattr(self, entry.name) != entry.default}
        return bool(self.polish) and not given & _OF_ITERATIONS

    def steps(self, bits: int) -> int:
        """As of the base class; where the rounding may be found otherwise, none, and below 8 bits a fifth."""
        return (0 if bits >= 8 else 300) if self.quick else super().steps(bits)

    @classmethod
    def aimet(cls, bits: int = 8, *, num_batches: int | None = None, batch_size: int = 32, **more: Any) -> AdaRound:
        """AIMET's settings: 10 000 iterations, 15 000 for weights below 8 bits, at its learning rate, without extras.

        `num_batches` × `batch_size` samples are used; None: all. `more` are fields, as for `AdaRound` itself.
        """
        if whole(2, 16)("bits", bits) < 8:
            more = {"num_iterations": 15_000, **more}
        if num_batches is not None:
            size = whole(1)("num_batches", num_batches) * whole(1)("batch_size", batch_size)
            more = {"data_size": size, **more}
        plain = {"early_stop": False, "update_bias": False, "scale_search": False, "polish": 0, "ridge": 0.0}
        theirs = {"num_iterations": 10_000, "learning_rate": 1e-3, "objective": "sampled", "batch_size": batch_size}
        return cls(**{**theirs, **plain, **more})


@dataclass(frozen=True)
class AdaQuant(FastFinetune):
    """Trains weights straight through a fixed grid (Hubara et al. 2020).

    learning_rate  the first rate; it falls to 0 along a cosine
    rate_unit      of learning_rate and of the rate in lr_adjust: "step" is the distance of two codes, so that one
                   rate fits every layer; "weight" is Quark's, the unit of the float weights
    The rest: `FastFinetune`.
    """

    learning_rate: float = field(0.02, real(above=0))
    rate_unit: str = field("step", choice(("step", "weight")))

    algorithm: ClassVar[str] = "adaquant"

    @property
    def rate_is_absolute(self) -> bool:
        return self.rate_unit == "weight"

    def to_dict(self) -> dict[str, Any]:
        """As of the base class; a rate always comes with its unit, and Quark's unit with a rate."""
        found = super().to_dict()
        if self.rate_is_absolute or found.keys() & _RATES:
            found |= {"LearningRate": self.learning_rate, "RateUnit": self.rate_unit}
        return found


@dataclass(frozen=True)
class GPTQ(FastFinetune):
    """Rounds one input after the other, each making up for those before it (Frantar et al. 2022); no iterations.

    act_order  inputs that are largest on average come first; False: in the order of the weight
    polish     sweeps of coordinate descent behind it; with a scale per block, in each of which that is fitted first
    The rest: `FastFinetune`; `scale_search` and `ridge` are what others call mse and percdamp.

    Raises:
        ConfigError: a setting of iterations is given.
    """

    act_order: bool = field(True, flag)
    polish: int = field(3, whole(0))
    ridge: float = field(0.1, real(0, 1))

    algorithm: ClassVar[str] = "gptq"

    def __post_init__(self) -> None:
        super().__post_init__()
        for entry in fields(self):
            if entry.name in _OF_ITERATIONS and getattr(self, entry.name) != entry.default:
                raise ConfigError(
                    f"{entry.name} ({quark_key(entry.name)}) is for iterations, and gptq has none; leave it out, or "
                    "take adaround"
                )

    def steps(self, bits: int) -> int:
        return 0


@dataclass(frozen=True)
class Nearest(FastFinetune):
    """Rounds to nearest, and no more than scales (`scale_search`) and biases (`update_bias`) are looked for.

    What bias correction and the weight method SeqMSE ask for; it is no value of `OptimAlgorithm`.

    num_candidates  scales to try: k / num_candidates of the plan's, for k from 1; None: a set that suits the format
    judged          biases are kept only where the outputs of the model gain by them, on samples that taught nothing
    """

    num_candidates: int | None = field(None, optional(whole(1)))
    judged: bool = field(False, flag)

    algorithm: ClassVar[str] = "nearest"


Method = AdaRound | AdaQuant | GPTQ

METHODS: dict[str, type[Method]] = {c.algorithm: c for c in (AdaRound, AdaQuant, GPTQ)}
"""The methods by `OptimAlgorithm`."""

_RATES = {"LearningRate", "LRAdjust"}

_OF_ITERATIONS = {
    *("num_iterations", "num_batches", "batch_size", "learning_rate", "lr_adjust", "early_stop", "objective"),
    *("reg_param", "beta_range", "warm_start"),
}
"""Fields that say how iterations go."""

_CPU = "it runs on the processor, with numpy and onnxruntime only; give 'cpu' or leave it out"
_RAM = "nothing is kept on disk, and layers share passes as far as memory goes; set MemoryLimit, in bytes"
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "OptimDevice": (("cpu",), _CPU),
    "InferDevice": (("cpu",), _CPU),
    "OutputQDQ": ((False,), "a layer is compared before its output is quantized; leave it out"),
    "MemOptLevel": ((1,), _RAM),
    "CacheDir": ((), _RAM),
    "NumWorkers": ((0, 1), "there are no worker processes to load data; limit threads with OMP_NUM_THREADS"),
    "PinMemory": ((False,), "there is no GPU to copy to; leave it out"),
    "UseGDS": ((False,), "there is no GPU to read to; leave it out"),
    "SelectMaxMemLayer": ((False,), "memory is bounded for every layer; set MemoryLimit, in bytes"),
    "LogPeriod": ((), "the report has one line per layer, not per iteration; leave it out"),
    "OutputIndex": ((0,), "SelectiveUpdate looks at all outputs; give an evaluator of your own to look at one"),
    "RefModelPath": ((), "the reference is the float model that is quantized; leave it out"),
    "DynamicBatch": ((False,), "samples are taken as they are; stack them yourself, if the model allows it"),
}
"""Keys of Quark that choose nothing here: the values that are accepted because they say what is done anyway (Quark's
defaults), and why others are refused. None is always accepted."""


def quark_key(name: str) -> str:
    """Quark's spelling of a field: `NumIterations` for `num_iterations`, `LRAdjust` for `lr_adjust`."""
    return "".join("LR" if part == "lr" else part.capitalize() for part in name.split("_"))


def from_quark(values: Mapping[str, Any]) -> Method:
    """The method and settings in Quark's dictionary; missing keys and None stand for the defaults of this package.

    Without RateUnit the rates of AdaQuant are Quark's, in units of the weight (LearningRate then is 1e-5 by default).

    Raises:
        ConfigError: an unknown key, one that is not supported, or a bad value.
    """
    given = {key: value for key, value in values.items() if value is not None}
    if given.get("LRAdjust") in ((), []):  # Quark's way to write none
        del given["LRAdjust"]
    name = str(given.pop("OptimAlgorithm", "adaround"))
    if name.lower() not in METHODS:
        raise ConfigError(f"FastFinetune OptimAlgorithm: unknown value {name!r}{nearest(name, METHODS)}")
    method = METHODS[name.lower()]
    if method is AdaQuant and given.keys() & _RATES:
        given.setdefault("RateUnit", "weight")
    if given.get("RateUnit") == "weight":
        given.setdefault("LearningRate", 1e-5)
    names = {quark_key(entry.name): entry.name for entry in fields(method)}
    for key in values:
        if key not in names and key != "OptimAlgorithm":
            _refuse(key, values[key], method, names)
    try:
        return method(**{names[key]: value for key, value in given.items() if key in names})
    except ConfigError as error:
        raise ConfigError(f"FastFinetune {error}") from error


def _refuse(key: str, value: Any, method: type[FastFinetune], names: Mapping[str, str]) -> None:
    """Say why a key has no place, unless its value says what is done anyway."""
    if key in UNSUPPORTED:
        accepted, reason = UNSUPPORTED[key]
        text = value.lower() if isinstance(value, str) else value
        if value is not None and not any(text == one and type(text) is type(one) for one in accepted):
            raise ConfigError(f"FastFinetune {key} = {value!r} is not supported: {reason}")
        return
    for other in METHODS.values():
        if key in {quark_key(entry.name) for entry in fields(other)}:
            raise ConfigError(f"FastFinetune {key} belongs to {other.__name__}, not to {method.__name__}; leave it out")
    known = [*names, *UNSUPPORTED, "OptimAlgorithm"]
    raise ConfigError(f"unknown FastFinetune key {key!r}{nearest(str(key), known)}")


_OF_RANGES = tuple(kind for kind in TUNABLE if not kind.endswith("Normalization"))
"""Operator types that ranges are learned at."""


@dataclass(frozen=True)
class RangeLearning:
    """Settings of learned step size quantization (Esser et al. 2020), layer by layer.

    num_iterations  steps of the optimizer per layer
    learning_rate   Adam's first rate for weights, in distances of two codes; it falls to 0 along a cosine
    batch_size      output positions of the layer per step
    positions       output positions of a layer that are kept, over all samples
    target_op_type  learn at these operator types only
    learn_weights   False: ranges (and biases) are learned, weights stay
    update_bias     learn the bias too
    data_size       use at most this many samples; None: all
    holdout         share of the samples that decide whether a layer is kept, and are not trained on
    fixed_seed      of every random choice

    Raises:
        ConfigError: a field is out of its range.
    """

    num_iterations: int = field(400, whole(1))
    learning_rate: float = field(0.01, real(above=0, high=1))
    batch_size: int = field(256, whole(1))
    positions: int = field(20000, whole(2))
    target_op_type: tuple[str, ...] = field(_OF_RANGES, subset(_OF_RANGES))
    learn_weights: bool = field(True, flag)
    update_bias: bool = field(True, flag)
    data_size: int | None = field(None, optional(whole(1)))
    holdout: float = field(0.2, real(0.01, 0.9))
    fixed_seed: int = field(1705472343, whole(0, 2**32 - 1))

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, entry.metadata["check"](entry.name, getattr(self, entry.name)))
