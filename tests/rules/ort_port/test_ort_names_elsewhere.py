"""Names of the other tools that are not in our packages: an import says what there is instead."""

from __future__ import annotations

import importlib
import inspect

import onnxruntime.quantization as theirs
import pytest

import quark_onnx.ort as ort
import quark_onnx.quark as quark
from quark_onnx.ort.elsewhere import ELSEWHERE as OF_ORT
from quark_onnx.quark.elsewhere import ELSEWHERE as OF_QUARK

TABLES = {ort: OF_ORT, quark: OF_QUARK}


@pytest.mark.parametrize("package", TABLES, ids=lambda package: package.__name__)
def test_an_import_says_what_there_is_instead(package: object) -> None:
    name = getattr(package, "__name__", "")
    for known in TABLES[package]:
        with pytest.raises(ImportError, match=rf"{name} has no {known}: \w+"):
            __import__(name, fromlist=[known])
        with pytest.raises(ImportError, match=rf"{name} has no {known}: \w+"):
            importlib.import_module(f"{name}.{known}.inner")
        with pytest.raises(AttributeError, match=rf"{name} has no '{known}': \w+"):
            getattr(package, known)
        assert not hasattr(package, known) and known not in dir(package)


@pytest.mark.parametrize("package", TABLES, ids=lambda package: package.__name__)
def test_names_that_nobody_has_are_not_there(package: object) -> None:
    name = getattr(package, "__name__", "")
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}.nobodys'"):
        importlib.import_module(f"{name}.nobodys")
    with pytest.raises(AttributeError, match=f"{name} has no 'nobodys'$"):
        getattr(package, "nobodys")  # noqa: B009 - mypy knows that it is not there
    assert importlib.util.find_spec(f"{name}.nobodys") is None


def test_a_name_of_onnxruntime_is_here_or_elsewhere() -> None:
    here = {name for name, value in vars(theirs).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert here <= {*ort.__all__, *OF_ORT}
    assert not {*ort.__all__} & OF_ORT.keys() and not {*quark.__all__} & OF_QUARK.keys()


def test_a_preset_can_be_imported() -> None:
    from quark_onnx.quark import XINT8_CONFIG as first

    assert first == quark.get_default_config("XINT8")
    first.nodes_to_exclude.append("a")
    from quark_onnx.quark import XINT8_CONFIG as second

    assert second.nodes_to_exclude == []
    with pytest.raises(ImportError, match="XINT_CONFIG"):
        from quark_onnx.quark import XINT_CONFIG  # noqa: F401
