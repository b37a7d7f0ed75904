"""Flags that several commands share, in groups: what to do, on which data, what to print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from quark_onnx.core.config import QuantizationConfig
from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.presets import get_default_config
from quark_onnx.engine.data import CalibrationData, ImageOptions, InputSpec, open_data, random_data

DEFAULT_PRESET = "S8S8_AAWS"

_HOW, _DATA, _IMAGES, _SHOW = "How to quantize", "Calibration data", "Data in image files", "What to print"


@dataclass(frozen=True)
class ConfigFlags:
    """How to quantize: a preset or a file, and what differs from it."""

    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            "-p",
            metavar="NAME",
            help="Start from this preset; `quark-onnx presets` lists them.",
            show_default=DEFAULT_PRESET,
            rich_help_panel=_HOW,
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Start from this JSON file instead of a preset.", rich_help_panel=_HOW
        ),
    ] = None
    per_channel: Annotated[
        bool | None,
        typer.Option(
            "--per-channel/--per-tensor",
            help="One weight scale per output channel, or one for all.",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None
    activation_type: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="int8, uint8, int16 or uint16.", show_default=False, rich_help_panel=_HOW),
    ] = None
    weight_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="As above, or int4 or uint4.", show_default=False, rich_help_panel=_HOW
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            "-x",
            metavar="NODE",
            help="Keep this node float: a name, a glob (head/*) or a regular expression (^conv). Repeatable.",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="Set an extra option, e.g. Percentile=99.9; the value is JSON or a string. Repeatable.",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None

    def build(self, **more: Any) -> QuantizationConfig:
        """The configuration; `more` are extra options that other flags set.

        Raises:
            ConfigError: a flag has a value that is unknown or cannot be combined.
        """
        start = self._start()
        extra = {**start.extra_options, **dict(map(_key_value, self.option or ())), **more}
        changes: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("per_channel", "activation_type", "weight_type")
            if getattr(self, name) is not None
        }
        excluded = (*start.nodes_to_exclude, *(self.exclude or ()))
        return replace(start, nodes_to_exclude=excluded, extra_options=extra, **changes)

    def _start(self) -> QuantizationConfig:
        if self.config is None:
            return get_default_config(self.preset or DEFAULT_PRESET)
        if self.preset is not None:
            raise ConfigError("--preset and --config each say where to start from; give only one of them")
        return read_config(self.config)


def read_config(file: Path) -> QuantizationConfig:
    """The configuration in a JSON file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return QuantizationConfig.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--option {text!r} has no value; write KEY=VALUE, e.g. Percentile=99.9")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


@dataclass(frozen=True)
class DataFlags:
    """Where samples come from, and how image files become inputs."""

    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            metavar="PATH",
            help="Folder of .npy, .npz or image files, or one .npy or .npz file of stacked samples.",
            show_default=False,
            rich_help_panel=_DATA,
        ),
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Use at most so many samples.", show_default="all", rich_help_panel=_DATA
        ),
    ] = None
    random_data: Annotated[
        bool,
        typer.Option(
            "--random-data", help="Random numbers instead: for a trial run, accuracy is lost.", rich_help_panel=_DATA
        ),
    ] = False
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Resize to 224x224, say.", show_default="the model's", rich_help_panel=_IMAGES),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option(metavar="X", help="Multiplies the pixels 0…255.", show_default="1/255", rich_help_panel=_IMAGES),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="Subtracted after scaling; one number or one per channel.",
            show_default="0",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Divides at the end.", show_default="1", rich_help_panel=_IMAGES),
    ] = None
    color: Annotated[
        str | None,
        typer.Option(metavar="ORDER", help="RGB, BGR or L (grey).", show_default="RGB", rich_help_panel=_IMAGES),
    ] = None
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="resize or center_crop.", show_default="resize", rich_help_panel=_IMAGES
        ),
    ] = None
    layout: Annotated[
        str | None,
        typer.Option(metavar="AXES", help="NCHW or NHWC.", show_default="the model's", rich_help_panel=_IMAGES),
    ] = None

    def extra_options(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """What these flags set among the extra options, on top of `base`."""
        images = self._images()
        found: dict[str, Any] = {"CalibDataSize": self.samples, "UseRandomData": self.random_data or None}
        if images:
            found["CalibImages"] = {**(base.get("CalibImages") or {}), **images}
        return {key: value for key, value in found.items() if value is not None}

    def configure(self, how: ConfigFlags) -> QuantizationConfig:
        """The configuration that both groups of flags describe, with data to calibrate it.

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
        elif self.data is None:
            raise _no_data()
        return config

    def open(self, inputs: Sequence[InputSpec]) -> CalibrationData:
        """The samples, for a command that needs no configuration."""
        if self.random_data:
            self._only_random()
            return random_data(inputs, samples=self.samples or 8)
        if self.data is None:
            raise _no_data()
        images = self._images()
        options = ImageOptions.from_dict(images) if images else None
        return open_data(None, inputs, path=self.data, limit=self.samples, image_options=options)

    def _only_random(self) -> None:
        if self.data is not None:
            raise ConfigError("both --data and random data are asked for; give only one of them")

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

    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print nothing but warnings and errors.", rich_help_panel=_SHOW
        ),
    ] = False
    json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON instead, and nothing else on stdout.", rich_help_panel=_SHOW),
    ] = False
