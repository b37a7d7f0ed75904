"""Quark's readers of calibration data. Anything else that `quark_onnx` reads samples from will do as well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError
from quark_onnx.engine.calibration_data import CalibrationData, Feed, open_data, random_data
from quark_onnx.engine.data_sources import InputSpec
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import ModelProto, io


class CalibrationDataReader(ABC):
    """onnxruntime's protocol: `get_next` gives one feed after the other, None at the end."""

    @abstractmethod
    def get_next(self) -> dict[str, Any] | None:
        """The next feed, {input name: array}; None: there are no more."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if (feed := self.get_next()) is None:
            raise StopIteration
        return feed


class CachedDataReader(CalibrationDataReader):
    """The feeds of another reader in memory, from where they can be read again.

    Args:
        dr: the reader; it is read to its end, or up to `data_size` feeds.
        convert_nchw_to_nhwc, quantize_fp16: False; arrays get the type that the model's inputs have.

    Raises:
        ConfigError: one of the two is not False.
    """

    def __init__(
        self, dr: Any, data_size: int | None = None, convert_nchw_to_nhwc: bool = False, quantize_fp16: bool = False
    ) -> None:
        for name, value in (("convert_nchw_to_nhwc", convert_nchw_to_nhwc), ("quantize_fp16", quantize_fp16)):
            if value is not False:
                raise ConfigError(
                    f"CachedDataReader {name}={value!r} is not supported: let the reader `dr` give them so"
                )
        self._feeds: list[dict[str, Any]] = []
        while (data_size is None or len(self._feeds) < data_size) and (feed := dr.get_next()) is not None:
            self._feeds.append({name: np.array(array) for name, array in feed.items()})
        self.reset_iter()

    def __len__(self) -> int:
        return len(self._feeds)

    def reset_iter(self) -> None:
        """Begin again with the first feed."""
        self._rest = iter(self._feeds)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed; None: there are no more."""
        return next(self._rest, None)


class ModelDataReader(CalibrationDataReader):
    """Samples that were found fit for a model: `data`, with what is to be said of them."""

    def __init__(self, data: CalibrationData) -> None:
        self.data = data
        self.reset_iter()

    def reset_iter(self) -> None:
        """Begin again with the first feed."""
        self._rest: Iterator[Feed] = iter(self.data)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed; None: there are no more."""
        return next(self._rest, None)


class RandomDataReader(ModelDataReader):
    """Random numbers in the shapes of a model's inputs, the same every time: for smoke tests only.

    Args:
        model_input: path or `onnx.ModelProto`.
        input_shape: {input name: shape}; dimensions that the model leaves open are 1 in front, else 16.
        input_data_range: {input name: [low, high]}; [0, 1) where it says nothing.
    """

    def __init__(
        self,
        model_input: str | Path | ModelProto,
        input_shape: Mapping[str, Sequence[int]] | None = None,
        input_data_range: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(random_data(_inputs(model_input), shapes=input_shape, ranges=input_data_range))


class PathDataReader(ModelDataReader):
    """Samples in files: a folder of `.npy` or `.npz` files or images, or a sub-folder of `.npy` files for each input.

    Args:
        model_input: path or `onnx.ModelProto`.
        data_path: the folder, or a file of stacked arrays.
        input_shape: empty; arrays have the shape that the model's inputs have.

    Raises:
        ConfigError: an `input_shape`. DataError: there are no such files.
    """

    def __init__(
        self, model_input: str | Path | ModelProto, data_path: str | Path, input_shape: Sequence[Any] = ()
    ) -> None:
        if list(input_shape):
            raise ConfigError(f"PathDataReader input_shape={input_shape!r} is not supported: save arrays in that shape")
        super().__init__(open_data(None, _inputs(model_input), path=data_path))


def _inputs(model_input: str | Path | ModelProto) -> list[InputSpec]:
    return list(input_specs(io.load(model_input)))
