"""For all tests."""

from __future__ import annotations

import os

import pytest
from saturation import EXPECTED_FAILURES, kernels_saturate

from quark_onnx.core.cores import VARIABLE, cores

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # that each kept all cores busy would take longer
    os.environ[VARIABLE] = str(max(1, cores() // workers))

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it for its workers, and rich takes the first it sees for good


@pytest.fixture(autouse=True)
def expected_failure(request: pytest.FixtureRequest) -> None:
    """Tests that saturating kernels break must fail on a machine that has them, and only there."""
    reason = EXPECTED_FAILURES.get(request.node.nodeid)
    if reason is not None and kernels_saturate():
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that is no longer there must not stay in the list. Where single tests are asked for, nothing is known."""
    collected = {item.nodeid for item in items}
    files = {name.split("::")[0] for name in collected}
    if any("::" in argument for argument in config.args):
        return
    stale = [name for name in EXPECTED_FAILURES if name.split("::")[0] in files and name not in collected]
    if stale:
        raise pytest.UsageError(f"tests/saturation.py lists tests that do not exist: {', '.join(stale)}")
