"""Tests that OpenVINO runs: it is in the extra `[test]`, yet not on every machine."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
