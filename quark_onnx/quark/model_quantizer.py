"""Quark's `ModelQuantizer`: configurations of both generations, on our pipeline."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from quark_onnx import pipeline
from quark_onnx.core.errors import ConfigError
from quark_onnx.graph import ModelProto
from quark_onnx.quark.algorithms import AlgoConfig, asked_by
from quark_onnx.quark.data_readers import ModelDataReader
from quark_onnx.quark.lowered_config import Lowered, dictionary, lowered
from quark_onnx.quark.lowered_qconfig import first_api
from quark_onnx.quark.model_nodes import ModelNodes
from quark_onnx.quark.qconfig import QConfig
from quark_onnx.quark.quantization_config import Config, QuantizationConfig
from quark_onnx.quark.summary import summary
from quark_onnx.result import Result

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
"""Of the logger `quark_onnx`, by onnxruntime's numbers."""


class ModelQuantizer:
    """Quantizes models with a configuration of Quark's.

    Args:
        config: a `QConfig` or a `Config`. It is read when `quantize_model` is called.

    Raises:
        ConfigError: it is something else.
    """

    def __init__(self, config: Config | QConfig) -> None:
        if not isinstance(config, Config | QConfig):
            raise ConfigError(
                "config must be a QConfig or a Config of quark_onnx.quark, e.g. Config(get_default_config('XINT8')), "
                f"not {type(config).__name__}"
            )
        self.config = config

    def quantize_model(
        self,
        model_input: str | Path | ModelProto,
        model_output: str | Path | None = None,
        calibration_data_reader: object = None,
        calibration_data_path: str | Path | None = None,
        algorithms: Sequence[AlgoConfig] | None = None,
    ) -> Result:
        """Quantize a float model; arguments and errors as those of `quark_onnx.ModelQuantizer.quantize_model`.

        Args:
            algorithms: more of them than the configuration has.

        Returns:
            Always a `Result`, with the model in it, also where a file is written.
        """
        asked = lowered(self._first_api(model_input, () if algorithms is None else algorithms))
        if isinstance(calibration_data_reader, ModelDataReader):
            calibration_data_reader = calibration_data_reader.data
        with _talking(asked):
            result = pipeline.ModelQuantizer(asked.config).quantize_model(
                model_input, model_output, calibration_data_reader, calibration_data_path
            )
        if asked.print_summary:
            print(summary(result))
        return result

    def _first_api(self, model_input: str | Path | ModelProto, algorithms: Sequence[AlgoConfig]) -> QuantizationConfig:
        """The configuration of the first API with more algorithms."""
        if not isinstance(algorithms, Sequence):
            raise ConfigError(f"algorithms must be a list, not {algorithms!r}")
        if isinstance(self.config, QConfig):
            return first_api(self.config, algorithms, ModelNodes(model_input))
        config = self.config.global_quant_config
        if not algorithms:
            return config
        fields, options = asked_by(algorithms)
        return replace(config, **fields, extra_options={**dictionary(config.extra_options), **options})


@contextmanager
def _talking(asked: Lowered) -> Iterator[None]:
    """A block that says as much as is asked for."""
    logger = logging.getLogger("quark_onnx")
    before = logger.level
    with warnings.catch_warnings():
        if asked.ignore_warnings:
            for kind in (ResourceWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
        if asked.log_severity_level is not None:
            logger.setLevel(_LEVELS[asked.log_severity_level])
        try:
            yield
        finally:
            logger.setLevel(before)
