"""What AIMET has here as well."""

from __future__ import annotations

from quark_onnx.quantsim.common.defs import CallbackFunc

__all__ = ["CallbackFunc"]
