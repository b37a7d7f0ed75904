"""`quark-onnx presets`: the configurations by name, in a table or in words."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from quark_onnx.cli.console import out, print_json
from quark_onnx.cli.flag_groups import spread
from quark_onnx.cli.flags import ShowFlags
from quark_onnx.cli.tables import facts, new_table
from quark_onnx.core.number_formats import Format
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.core.settings.fast_finetune import METHODS as TUNERS
from quark_onnx.core.settings.presets import DEFAULT, PRESETS, TRAINED, get_default_config
from quark_onnx.core.settings.range_methods import METHODS, WEIGHT_ONLY
from quark_onnx.core.settings.training.qat import QAT


@spread
def presets_command(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Explain this preset in words.", show_default=False)
    ] = None,
    show: ShowFlags,
) -> None:
    """List the presets, or explain one of them.

    A preset is where `--preset` starts from; flags change it.

    - `quark-onnx presets`
    - `quark-onnx presets A8W8`
    """
    chosen = PRESETS if name is None else {name: get_default_config(name)}
    if show.json:
        print_json(chosen)
    elif show.quiet:
        return
    elif name is None:
        _list()
    else:
        out.print(Text(f"{name}\n", style="bold"))
        out.print(facts(explained(chosen[name])))


def _list() -> None:
    table = new_table("Preset", "Activations", "Weights", "Calibration", "Tuned")
    table.columns[0].no_wrap = True
    endings = [*(f"_{method.upper()}" for method in TUNERS), TRAINED]
    for name, config in PRESETS.items():
        if not name.endswith(tuple(endings)):
            tuned = "yes" if config.finetune else "also" if name + endings[0] in PRESETS else ""
            table.add_row(name, *_cells(config), tuned)
    out.print(table)
    more = f"{', '.join(endings[:-1])} and {endings[-1]}"
    out.print(f"{DEFAULT} is the default. Those with `also` exist with {more} at the end, too.")
    out.print("Names of the form of S8S8_AAWS spell other types: U8S4_AAWS, S16S8_AAWS_ADAQUANT.")
    out.print("To have one explained:  quark-onnx presets NAME")


def _cells(config: QuantizationConfig) -> tuple[str, str, str]:
    """Activations, weights and calibration in a few words."""
    if config.conversion is not None:
        return config.conversion, config.conversion, "none"
    weights = _format(config.weight) + (" per channel" if config.per_channel else "")
    if block := config.option("BlockSize"):
        weights += f" in blocks of {block}"
    if config.option("WeightsOnly"):
        return "float", weights, "none"
    if config.use_dynamic_quant:
        return f"{config.activation_type} at run time", weights, "none"
    return _format(config.activation), weights, _calibration(config)


def _format(format: Format) -> str:
    powers = ", powers of 2" if format.scale == "pow2" else ""
    return f"{format.dtype} {'symmetric' if format.symmetric else 'asymmetric'}{powers}"


def _calibration(config: QuantizationConfig) -> str:
    if config.calibrate_method == "Percentile":
        return f"Percentile {config.option('Percentile')}"
    moving = ", moving average" if config.option("CalibMovingAverage") else ""
    return config.calibrate_method + moving


def explained(config: QuantizationConfig) -> dict[str, str]:
    """What a configuration means, sentence by sentence."""
    found = {"Target": f"{config.target}: {config.row.meaning}"}
    if config.conversion is not None:
        return found | _converted(config.conversion)
    found["Activations"] = _activations(config)
    found["Weights"] = f"{_integers(config.weight)}; {_scales(config)}"
    found["Biases"] = _biases(config)
    if config.needs_data:
        found["Ranges"] = _ranges(config)
    if config.op_types_to_quantize:
        found["Operators"] = f"only {' and '.join(config.op_types_to_quantize)}; all else stays float"
    found |= {"Equalization": _equalization(config), "Smoothing": _smoothing(config)}
    found["Fine-tuning"] = _finetuning(config)
    if config.training is not None:
        found["Training"] = _training(config.training)
    if config.include_auto_mp:
        found["Mixed precision"] = _mixed(config)
    if config.protection.on and not (config.include_auto_mp or config.row.fixed_point):
        found["Protection"] = "what 8 bits would ruin stays float"
    told = {key: value for key, value in config.extra_options.items() if key not in _TOLD}
    return found | {key: f"{value}: {OPTIONS[key].meaning}" for key, value in told.items()}


_TOLD = (
    "ActivationSymmetric",
    "WeightSymmetric",
    "Percentile",
    "FastFinetune",
    "QAT",
    "WeightsOnly",
    "BlockSize",
    "BiasCorrection",
    "Protect",
    "SmoothQuant",
    "SmoothAlpha",
)
_JUDGED = "biases take back what their layers are off by, if samples that taught nothing say that the outputs gain"


def _converted(type: str) -> dict[str, str]:
    how = {
        "float16": "weights and computation are float16, inputs and outputs stay float32",
        "bfloat16": "weights are stored as bfloat16, every result is rounded to it, sums are float32",
    }[type]
    return {"Conversion": f"to {type}: {how}; half the size, no scales", "Data": "none needed"}


def _activations(config: QuantizationConfig) -> str:
    if config.option("WeightsOnly"):
        return "float" if config.needs_data else "float; no data needed"
    if config.use_dynamic_quant:
        return f"{config.activation_type}, each with the scale of its own values, found at run time; no data needed"
    return f"{_integers(config.activation)}; one scale for the whole tensor"


def _scales(config: QuantizationConfig) -> str:
    block = config.option("BlockSize")
    if block:
        return f"one scale for every {block} neighbours of a column"
    return "one scale for each output channel" if config.per_channel else "one scale for the whole tensor"


def _biases(config: QuantizationConfig) -> str:
    bits = config.bias_bits
    if bits is None:
        return "float"
    return "int32, at input scale times weight scale" if bits == 32 else f"int{bits}, with a scale of their own"


def _mixed(config: QuantizationConfig) -> str:
    """Which way layers move."""
    types = " and ".join(dict.fromkeys((config.moved.activation_type, config.moved.weight_type)))
    if config.mixing.narrows(config.activation_type, config.weight_type):
        return f"layers become {types} one after the other, the least harmful first, as far as the outputs allow"
    return f"layers become {types} one after the other, the most harmful first, until the outputs are good enough"


def _ranges(config: QuantizationConfig) -> str:
    method = METHODS[config.calibrate_method]
    if config.calibrate_method == "Percentile":
        method = f"{config.option('Percentile')} % of the values seen in calibration; the rest is clipped"
    weights = config.option("WeightCalibrateMethod")
    return method if weights is None else f"{method}; of weights: {(METHODS | WEIGHT_ONLY)[weights]}"


def _equalization(config: QuantizationConfig) -> str:
    if not config.include_cle:
        return "none"
    if config.per_channel:
        return "none: with one scale for each channel there is nothing to even out"
    return "ranges of channels are evened out between layers first, where that leaves the float model as it is"


def _smoothing(config: QuantizationConfig) -> str:
    how, row = config.smoothing, config.row
    if not how.on or not config.observes or row.pow2 or (how.judged and not row.runtime):
        return "none"
    share = "the best share for each" if how.alpha is None else f"the share {how.alpha}"
    gain = ", where that gains on samples that taught nothing" if how.judged else ""
    return f"channels of what products read give a part of their range to the weights: {share}{gain}"


def _finetuning(config: QuantizationConfig) -> str:
    tuning = config.finetune
    if tuning is None:
        told = {True: "; biases take back what their layers are off by", "auto": f"; {_JUDGED}"}
        return "none; weights are rounded to the nearest" + told.get(config.option("BiasCorrection"), "")
    how = {
        "adaround": "AdaRound learns which weights to round up and which down",
        "adaquant": "AdaQuant trains the weights on their grid",
        "gptq": "GPTQ rounds the inputs of a layer one after the other, each making up for those before it",
    }[tuning.algorithm]
    steps = tuning.steps(config.weight.bits)
    how += f", layer by layer{f', at most {steps} iterations each' if steps else ''}"
    given = ", ".join(f"{key} {value}" for key, value in tuning.to_dict().items() if key != "OptimAlgorithm")
    return (
        f"{how}; a layer is kept only if its error on samples held out of it gets less{f' ({given})' if given else ''}"
    )


def _training(how: QAT) -> str:
    parts = {
        "weights": how.weights,
        "biases": how.biases,
        "scales of weights": how.weight_scales,
        "ranges of activations": how.activation_ranges,
    }
    length = f"{how.epochs} passes over the data" if how.steps is None else f"{how.steps} steps"
    given = ", ".join(f"{key} {value}" for key, value in how.to_dict().items())
    return (
        f"{', '.join(name for name, on in parts.items() if on)} are trained through the whole model, {length}, towards "
        "the outputs of the float model, and labels where there are any; the state is kept that samples held out of "
        f"it like best{f' ({given})' if given else ''}"
    )


def _integers(format: Format) -> str:
    zero = "zero point in the middle of the range" if format.symmetric else "zero point anywhere"
    powers = "; scales are powers of two" if format.scale == "pow2" else ""
    return f"{format.dtype}, {format.lo} … {format.hi}; {zero}{powers}"
