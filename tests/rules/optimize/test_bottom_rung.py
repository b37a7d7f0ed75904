"""Where a search begins: a target that is known, and no option that it decides itself."""

from __future__ import annotations

import pytest

from quark_onnx import ConfigError
from quark_onnx.optimize.rungs import DECIDED, bottom


def test_it_is_of_the_target_that_is_asked_for() -> None:
    assert [bottom(name, {}).target for name in ("cpu", "tensorrt", "qnn")] == ["cpu", "tensorrt", "qnn"]
    with pytest.raises(ConfigError, match="unknown value 'cpuu'; did you mean 'cpu'"):
        bottom("cpuu", {})


@pytest.mark.parametrize("name", DECIDED)
def test_what_the_search_decides_is_no_option(name: str) -> None:
    with pytest.raises(ConfigError, match=f"option {name!r} is what the search decides; remove it"):
        bottom("cpu", {"CalibDataSize": 3, name: {}})
    assert bottom("cpu", {"CalibDataSize": 3}).option("CalibDataSize") == 3
