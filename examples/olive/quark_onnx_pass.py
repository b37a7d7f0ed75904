"""A pass for Microsoft Olive that quantizes with quark_onnx. In the folder of this file, after `pip install olive-ai`:

    python -m olive run --config run.json --package-config package_config.json

`package_config.json` tells Olive of the pass (and of no other: add those that you use), `run.json` uses it: its
`digits.onnx` is the model that comes with quark_onnx, its data are read at the end of this file.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from olive.common.config_utils import validate_config
from olive.data.config import DataConfig
from olive.data.registry import Registry
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.pass_config import PassConfigParam

from quark_onnx import Config, ModelQuantizer, get_default_config
from quark_onnx.demo import digits

logger = logging.getLogger("olive.quark_onnx")

PARAMETERS = {
    "preset": (str, "A preset: `quark-onnx presets` lists them."),
    "fields": (dict | None, "Fields of QuantizationConfig that differ from the preset's."),
    "extra_options": (dict | None, "Options that differ from the preset's."),
    "data_config": (DataConfig | dict | None, "Calibration data, as for Olive's own passes."),
}


class QuarkOnnxQuantization(Pass):
    """A float ONNX model in, a QDQ model out."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, PassConfigParam]:
        return {
            name: PassConfigParam(type_=kind, required=name == "preset", default_value=None, description=text)
            for name, (kind, text) in PARAMETERS.items()
        }

    def _run_for_config(self, model: ONNXModelHandler, config: Any, output_model_path: str) -> ONNXModelHandler:
        preset = get_default_config(config.preset)
        options = {**preset.extra_options, **(config.extra_options or {})}
        loader = None
        if config.data_config is not None:
            loader = validate_config(config.data_config, DataConfig).to_data_container().create_dataloader()
        output = Path(resolve_onnx_path(output_model_path))
        chosen = Config(replace(preset, **(config.fields or {}), extra_options=options))
        report = ModelQuantizer(chosen).quantize_model(model.model_path, output, loader).report
        for name, decibels in report.sqnr.items():
            logger.info("%s: %.1f dB against the float model, on %d samples", name, decibels, report.judged)
        return ONNXModelHandler(model_path=str(output.parent), onnx_file_name=output.name)


@Registry.register_dataset()
def handwritten_digits(count: int) -> list[tuple[dict[str, Any], int]]:
    """The samples of run.json: what the inputs are by name, and the label."""
    images, labels, _, _ = digits()
    return [({"input": image}, int(label)) for image, label in zip(images[:count], labels, strict=False)]
