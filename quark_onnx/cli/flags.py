"""Flags that several commands share, in groups: what to do, on which data, what to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from quark_onnx.core.errors import ConfigError, DataError, reading
from quark_onnx.core.json_reading import json_of
from quark_onnx.core.settings.checked_fields import named
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.presets import DEFAULT, beginning
from quark_onnx.core.settings.targets import TARGETS, Target
from quark_onnx.engine.calibration_data import CalibrationData, ImageOptions, random_data
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import Model

_how = partial(typer.Option, show_default=False, rich_help_panel="How to quantize")
_data = partial(typer.Option, show_default=False, rich_help_panel="Data")
_image = partial(typer.Option, show_default=False, rich_help_panel="Data in image files")
show_flag = partial(typer.Option, show_default=False, rich_help_panel="What to print")
output_option = partial(typer.Option, "--output", "-o", show_default=False)
"""Makers of options by group; the help says the default where there is one worth knowing."""


CustomOps = Annotated[
    list[str] | None,
    _how(
        "--custom-ops",
        metavar="FILE",
        help="A shared library with operators of the model that onnxruntime has not. Repeatable.",
    ),
]


RunBy = Annotated[
    str, show_flag("--target", metavar="NAME", help=f"The target that runs the quantized model: {', '.join(TARGETS)}.")
]


@dataclass(frozen=True)
class ConfigFlags:
    """How to quantize: a preset or a file, and what differs from it."""

    preset: Annotated[
        str | None,
        _how(
            "--preset",
            "-p",
            metavar="NAME",
            help=f"Start from this preset (default: {DEFAULT}); `quark-onnx presets` lists them.",
        ),
    ] = None
    config: Annotated[
        Path | None, _how("--config", metavar="FILE", help="Start from this JSON file instead of a preset.")
    ] = None
    per_channel: Annotated[
        bool | None,
        _how("--per-channel/--per-tensor", help="One scale per output channel of a weight, or one for all of it."),
    ] = None
    target: Annotated[
        str | None,
        _how("--target", metavar="NAME", help=f"What runs the model: {', '.join(TARGETS)}."),
    ] = None
    method: Annotated[
        str | None,
        _how("--method", metavar="NAME", help="How ranges of activations are chosen: MinMax, Percentile, MinMSE, …"),
    ] = None
    weight_method: Annotated[
        str | None, _how("--weight-method", metavar="NAME", help="How ranges of weights are chosen; also SeqMSE, HQQ.")
    ] = None
    activation_type: Annotated[
        str | None, _how(metavar="TYPE", help="Activations become int8, uint8, …: 2 to 16 bits; or float16, bfloat16.")
    ] = None
    weight_type: Annotated[str | None, _how(metavar="TYPE", help="Weights likewise; float types for both.")] = None
    weight_pairs: Annotated[
        str | None,
        _how(
            metavar="HOW",
            help="How int8 weights keep from saturating on x64 without VNNI: auto, safe, uint8, or off.",
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        _how(
            "--exclude",
            "-x",
            metavar="NODE",
            help="Keep this node float: a name, a glob (head/*) or a regular expression (^conv). Repeatable.",
        ),
    ] = None
    no_cle: Annotated[bool, _how("--no-cle", help="Do not even out channels between layers before quantizing.")] = False
    no_protect: Annotated[
        bool, _how("--no-protect", help="Quantize also what 8 bits would ruin, which otherwise stays float.")
    ] = False
    bias_correction: Annotated[
        bool | None,
        _how(
            "--bias-correction/--no-bias-correction",
            help="Correct each bias by the mean error of its layer, whatever the outputs say; fine-tuning does, too.",
        ),
    ] = None
    time_limit: Annotated[
        float | None,
        _how(
            "--time-limit",
            metavar="SECONDS",
            help="End fine-tuning after so many seconds; what is left is rounded to the nearest, and --resume goes on.",
        ),
    ] = None
    custom_ops: CustomOps = None
    option: Annotated[
        list[str] | None,
        _how(
            "--option",
            metavar="KEY=VALUE",
            help="Set an extra option, e.g. Percentile=99.9; the value is JSON or a string. A dictionary, e.g. "
            """FastFinetune='{"NumIterations": 1000}', changes only the keys it has. Repeatable.""",
        ),
    ] = None

    def build(self, **more: Any) -> QuantizationConfig:
        """The configuration; `more` are extra options that other flags set.

        Raises:
            ConfigError: a flag has a value that is unknown or cannot be combined.
        """
        start, changes = self._start()[1], self._changes()
        extra = dict(start.extra_options)
        for text in self.option or ():
            key, value = _key_value(text)
            extra[key] = _merged(extra.get(key), value)
        extra |= {} if self.bias_correction is None else {"BiasCorrection": self.bias_correction}
        if self.time_limit is not None:
            if not start.include_fast_ft:
                raise ConfigError(
                    "--time-limit ends fine-tuning, and with this configuration there is none: start from a preset "
                    "such as S8S8_AAWS_ADAROUND, or leave it out"
                )
            extra["FastFinetune"] = _merged(extra.get("FastFinetune"), {"TimeLimit": self.time_limit})
        extra |= {"Protect": False} if self.no_protect else {}
        extra |= {"UserCustomOpLibPath": self.custom_ops} if self.custom_ops else {}
        changes |= {"calibrate_method": self.method} if self.method is not None else {}
        extra |= {"WeightCalibrateMethod": self.weight_method} if self.weight_method is not None else {}
        changes |= {"include_cle": False} if self.no_cle else {}
        excluded = tuple(dict.fromkeys((*start.nodes_to_exclude, *(self.exclude or ()))))
        config = replace(start, nodes_to_exclude=excluded, extra_options={**extra, **more}, **changes)
        if self.method is not None and not config.observes:
            raise ConfigError(
                "--method chooses ranges of activations, which have none with this configuration; leave it out "
                "(--weight-method is for weights)"
            )
        return config

    def _changes(self) -> dict[str, Any]:
        """Fields that flags of their name set."""
        names = ("per_channel", "target", "activation_type", "weight_type", "weight_pairs")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _start(self) -> tuple[str, QuantizationConfig]:
        """What the flags change, and the name of the preset that it is; empty where it is a file."""
        if self.config is None:
            return beginning(self.preset, self._changes())
        if self.preset is not None:
            raise ConfigError("--preset and --config each say where to start from; give only one of them")
        return "", read_config(self.config)

    @property
    def only_of_the_model(self) -> bool:
        """Whether no flag says how to quantize: what runs a quantized model may be named."""
        return replace(self, custom_ops=None, target=None) == ConfigFlags()

    @property
    def runs_on(self) -> Target:
        """The target that a quantized model is run for.

        Raises:
            ConfigError: there is no such target.
        """
        return TARGETS["cpu" if self.target is None else named(self.target, tuple(TARGETS), "target")]

    @property
    def begins_with(self) -> str:
        """The preset that the flags change; empty where that is a file."""
        return self._start()[0]


def read_config(file: Path) -> QuantizationConfig:
    """The configuration in a JSON file.

    Raises:
        ConfigError: it cannot be read.
    """
    with reading(f"the configuration {file}", ConfigError, "give a file of JSON"):
        text = file.read_text(encoding="utf-8")
    try:
        return QuantizationConfig.from_json(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--option {text!r} has no value; write KEY=VALUE, e.g. Percentile=99.9")
    try:
        return key, json_of(value)
    except ValueError:
        return key, value


def _merged(old: Any, new: Any) -> Any:
    """A dictionary changes those keys of an earlier one that it has; anything else replaces it."""
    both = isinstance(old, Mapping) and isinstance(new, Mapping)
    return {**old, **new} if both else new


@dataclass(frozen=True)
class DataFlags:
    """Where samples come from, and how image files become inputs."""

    data: Annotated[
        Path | None,
        _data(
            "--data",
            "-d",
            metavar="PATH",
            help="Folder of .npy, .npz or image files, or one .npy or .npz file of stacked samples.",
        ),
    ] = None
    samples: Annotated[int | None, _data(min=1, metavar="N", help="Use only the first N samples.")] = None
    random_data: Annotated[
        bool, _data("--random-data", help="Use random numbers: for a trial run, accuracy is lost.")
    ] = False
    size: Annotated[
        str | None, _image(metavar="HxW", help="Height and width, e.g. 224x224 (default: those of the model's input).")
    ] = None
    scale: Annotated[
        float | None, _image(metavar="X", help="Multiplies the pixels, which are 0…255 (default: 1/255).")
    ] = None
    mean: Annotated[
        str | None,
        _image(metavar="R,G,B", help="Subtracted after scaling: one number, or one per channel (default: 0)."),
    ] = None
    std: Annotated[str | None, _image(metavar="R,G,B", help="Divides after that, likewise (default: 1).")] = None
    color: Annotated[
        str | None, _image(metavar="ORDER", help="Order of the channels: RGB, BGR or L for grey (default: RGB).")
    ] = None
    crop: Annotated[
        str | None,
        _image(
            metavar="HOW", help="resize squeezes the whole image, center_crop cuts the long side (default: resize)."
        ),
    ] = None
    layout: Annotated[
        str | None, _image(metavar="AXES", help="NCHW or NHWC (default: told from the model's input).")
    ] = None

    def extra_options(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """What these flags set among the extra options, on top of `base`."""
        images = self._images()
        found: dict[str, Any] = {"CalibDataSize": self.samples, "UseRandomData": self.random_data or None}
        if images:
            found["CalibImages"] = {**(base.get("CalibImages") or {}), **images}
        return {key: value for key, value in found.items() if value is not None}

    def configure(self, how: ConfigFlags) -> QuantizationConfig:
        """The configuration that both groups of flags describe, with data to calibrate it where it needs them.

        Raises:
            ConfigError: a flag has a bad value.
            DataError: there are no data.
        """
        config = how.build(**self.extra_options(how.build().extra_options))
        images = config.option("CalibImages")
        if images is not None:
            ImageOptions.from_dict(images)  # refused now rather than after preparing the model
        if config.option("UseRandomData"):
            self._only_random()
        elif self.data is None and config.needs_data:
            raise _no_data()
        return config

    def open(self, model: Model) -> CalibrationData:
        """The samples of a model, for a command that needs no configuration."""
        if self.random_data:
            self._only_random()
            return random_data(input_specs(model), samples=self.samples or 8)
        if self.data is None:
            raise _no_data()
        images = self._images()
        options = ImageOptions.from_dict(images) if images else None
        return samples_of(model, None, path=self.data, limit=self.samples, image_options=options)

    def _only_random(self) -> None:
        if self.data is not None or self._images():
            raise ConfigError("random data are asked for, and --data or image flags too; leave one of them out")

    def _images(self) -> dict[str, Any]:
        """The image options that were given, by name."""
        given: dict[str, Any] = {name: getattr(self, name) for name in ("scale", "color", "crop", "layout")}
        given |= {name: _numbers(name, getattr(self, name)) for name in ("mean", "std")}
        given["size"] = _size(self.size)
        return {name: value for name, value in given.items() if value is not None}


def _no_data() -> DataError:
    return DataError("no calibration data; give --data PATH (a folder of samples), or --random-data for a trial run")


def _numbers(flag: str, text: str | None) -> float | list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--{flag} {text!r} is not a number or a list such as 0.485,0.456,0.406") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _size(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--size {text!r} is not a height and width such as 224x224")
    return [int(parts[0]), int(parts[-1])]


@dataclass(frozen=True)
class ShowFlags:
    """What appears on the terminal."""

    quiet: Annotated[bool, show_flag("--quiet", "-q", help="Print nothing but warnings and errors.")] = False
    json: Annotated[bool, show_flag("--json", help="Print JSON instead, and nothing else on stdout.")] = False
