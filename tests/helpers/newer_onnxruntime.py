"""What only newer versions of onnxruntime have: with others, tests of it are skipped, and say so."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from quark_onnx.engine.runner import newest_opset


def needs_opset(opset: int) -> None:
    """Go on only where QuantizeLinear and DequantizeLinear of this operator set can run."""
    if (newest := newest_opset(opset)) < opset:
        pytest.skip(f"onnxruntime {ort.__version__} quantizes in opsets up to {newest}, not {opset}")


def older_than(version: str) -> bool:
    """Whether this onnxruntime is."""
    here, other = ([int(part) for part in one.split(".")[:2]] for one in (ort.__version__, version))
    return here < other


def needs_version(first: str, what: str) -> None:
    """Go on only with the first version that does what is tested, or a later one."""
    if older_than(first):
        pytest.skip(f"onnxruntime {ort.__version__}: only {first} and newer have {what}")
