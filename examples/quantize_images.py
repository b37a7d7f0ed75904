"""Quantize a classifier with a folder of images: `python quantize_images.py MODEL.onnx FOLDER [OUTPUT.onnx]`.

The folder holds some hundred typical photos (.jpg, .png, .bmp); no labels are needed. IMAGES says how your program
turns an image into an input: it must be the same here. Needs `pip install 'quark-onnx[images]'`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from quark_onnx import Config, ModelQuantizer, Result, get_default_config

IMAGES = {"scale": 1 / 127.5, "mean": 1.0, "crop": "center_crop"}  # pixels 0…255 become −1…1
# as torchvision does: {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}; grey images: {"color": "L"}


def quantize(model: Path, folder: Path, output: Path, images: dict[str, object] = IMAGES) -> Result:
    """The preset that is taken without a name, and how images become inputs."""
    preset = get_default_config()
    options = {**preset.extra_options, "CalibImages": images, "CalibDataSize": 200}
    config = Config(replace(preset, extra_options=options))
    return ModelQuantizer(config).quantize_model(model, output, calibration_data_path=folder)


def main(model: str, folder: str, output: str = "int8.onnx", color: str = "RGB") -> None:
    """Quantize, and tell how it went."""
    report = quantize(Path(model), Path(folder), Path(output), {**IMAGES, "color": color}).report
    for name, value in report.sqnr.items():
        print(f"{name}: {value:.1f} dB against the float model, on {report.judged} images")
    for op_type, (integer, count) in report.fused.items():
        print(f"{op_type}: {integer} of {count} run on integers")
    for node, reason in report.float_nodes.items():
        print(f"{node} stays float: {reason}")
    print(f"wrote {output}, weights {report.bytes['float'] / report.bytes['quantized']:.1f} times smaller")


if __name__ == "__main__":
    main(*sys.argv[1:])
