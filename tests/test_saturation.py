"""The list of expected failures holds tests that exist: one that was renamed would pass unnoticed, or fail for good."""

from __future__ import annotations

import pytest
from saturation import COLLECTED, EXPECTED_FAILURES


def test_the_list_names_tests_that_exist(pytestconfig: pytest.Config) -> None:
    """Of the files that were collected: there may be others."""
    collected = pytestconfig.stash[COLLECTED]
    files = {name.split("::")[0] for name in collected}
    assert [name for name in EXPECTED_FAILURES if name.split("::")[0] in files and name not in collected] == []
