"""`quark-onnx quantize`: the main job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from quark_onnx.cli.console import db_text, float_table, fused_table, layer_table, out, print_json, progress, size_text
from quark_onnx.cli.flags import ConfigFlags, DataFlags, ShowFlags
from quark_onnx.cli.folder import plan_folder, save_plan
from quark_onnx.cli.spread import spread
from quark_onnx.core.config import QuantizationConfig
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.result import Report, Result
