"""For all tests."""

from __future__ import annotations

import os

import pytest
from saturation import COLLECTED, EXPECTED_FAILURES, kernels_saturate

from quark_onnx.core.threads import VARIABLE, cores

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ[VARIABLE] = str(max(1, cores() // workers))  # if each kept all cores busy, the suite would take longer

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it for its workers, and rich takes the first it sees for good


@pytest.fixture(autouse=True)
def expected_failure(request: pytest.FixtureRequest) -> None:
    """Tests that saturating kernels break must fail on a machine that has them, and only there."""
    reason = EXPECTED_FAILURES.get(request.node.nodeid)
    if reason is not None and kernels_saturate():
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what there is, before any of it is deselected."""
    config.stash[COLLECTED] = {item.nodeid for item in items}
