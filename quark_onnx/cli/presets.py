"""`quark-onnx presets`: the configurations by name, in a table or in words."""

from __future__ import annotations

from typing import Annotated

import typer

from quark_onnx.cli.console import out, print_json
from quark_onnx.cli.flags import DEFAULT_PRESET, ShowFlags
from quark_onnx.cli.spread import spread
from quark_onnx.cli.tables import facts, new_table
from quark_onnx.core.config import QuantizationConfig
from quark_onnx.core.finetune import METHODS
from quark_onnx.core.formats import Format
from quark_onnx.core.options import OPTIONS
from quark_onnx.core.presets import PRESETS, get_default_config

_METHODS = [method.__name__ for method in METHODS.values()]


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
        out.print(f"{name}\n", style="bold")
        out.print(facts(explained(chosen[name])))


def _list() -> None:
    table = new_table("Preset", "Activations", "Weights", "Calibration")
    tuned = new_table("Fine-tuned by", *_METHODS)
    for name, config in PRESETS.items():
        if config.finetune is not None:
            continue
        tuned.add_row(name, *(f"{name}_{method.upper()}" for method in _METHODS))
        weights = _format(config.weight) + (" per channel" if config.per_channel else "")
        table.add_row(name, _format(config.activation), weights, _calibration(config))
    out.print(table)
    out.print(tuned)
    out.print(f"{DEFAULT_PRESET} is the default. To have one explained:  quark-onnx presets NAME")


def _format(format: Format) -> str:
    return f"{format.dtype} {'symmetric' if format.symmetric else 'asymmetric'}"


def _calibration(config: QuantizationConfig) -> str:
    if config.calibrate_method == "Percentile":
        return f"Percentile {config.option('Percentile')}"
    return config.calibrate_method


def explained(config: QuantizationConfig) -> dict[str, str]:
    """What a configuration means, sentence by sentence."""
    scales = "one scale for each output channel" if config.per_channel else "one scale for the whole tensor"
    if config.calibrate_method == "Percentile":
        ranges = f"{config.option('Percentile')} % of the values seen in calibration; the rest is clipped"
    else:
        ranges = "from the smallest to the largest value seen in calibration; nothing is clipped"
    return {
        "Activations": f"{_integers(config.activation)}; one scale for the whole tensor",
        "Weights": f"{_integers(config.weight)}; {scales}",
        "Ranges": ranges,
        "Equalization": _equalization(config),
        "Fine-tuning": _finetuning(config),
        **{key: f"{value}: {OPTIONS[key].meaning}" for key, value in config.extra_options.items() if key not in _TOLD},
    }


_TOLD = ("ActivationSymmetric", "WeightSymmetric", "Percentile", "FastFinetune")


def _equalization(config: QuantizationConfig) -> str:
    if not config.include_cle:
        return "none"
    if config.per_channel:
        return "none: with one scale for each channel there is nothing to even out"
    return "ranges of channels are evened out between layers first, where that leaves the float model as it is"


def _finetuning(config: QuantizationConfig) -> str:
    tuning = config.finetune
    if tuning is None:
        return "none; weights are rounded to the nearest"
    how = {
        "adaround": "AdaRound learns which weights to round up and which down",
        "adaquant": "AdaQuant trains the weights on their grid",
    }[tuning.algorithm]
    given = ", ".join(f"{key} {value}" for key, value in tuning.to_dict().items() if key != "OptimAlgorithm")
    return (
        f"{how}, layer by layer, at most {tuning.steps(8)} iterations each; a layer is kept only if its error on "
        f"samples held out of it gets less{f' ({given})' if given else ''}"
    )


def _integers(format: Format) -> str:
    zero = "zero point in the middle of the range" if format.symmetric else "zero point anywhere"
    return f"{format.dtype}, {format.lo} … {format.hi}; {zero}"
