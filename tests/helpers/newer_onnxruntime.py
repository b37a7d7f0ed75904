"""What only newer versions of onnxruntime have: with others, tests of it are skipped, and say so."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from quark_onnx.engine.runner import newest_opset


def needs_opset(opset: int) -> None:
    """Go on only where QuantizeLinear and DequantizeLinear of this operator set can run."""
    if (newest := newest_opset(opset)) < opset:
        pytest.skip(f"onnxruntime {ort.__version__} quantizes in opsets up to {newest}, not {opset}")
