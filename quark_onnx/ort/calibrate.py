"""Calibration as onnxruntime.quantization words it: the reader to derive from, and the range methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.ort.quant_utils import Word


class CalibrationMethod(Word):
    """How ranges of activations are chosen."""

    MinMax = 0
    Entropy = 1
    Percentile = 2
    Distribution = 3


class CalibrationDataReader(ABC):
    """Base of the user's readers. One that has `rewind()` can be read twice; others are kept as they are read."""

    @abstractmethod
    def get_next(self) -> Any:
        """The next feed, a dictionary of input name and array; None at the end."""

    def __iter__(self) -> CalibrationDataReader:
        return self

    def __next__(self) -> Any:
        feed = self.get_next()
        if feed is None:
            raise StopIteration
        return feed

    def set_range(self, start_index: int, end_index: int) -> None:
        """Nothing calls it.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("set_range: calibration streams in bounded memory, so that no reader is cut into pieces")
