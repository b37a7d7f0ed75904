"""Arguments of AIMET: names of layers, several names of one thing, and those with one value that holds here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.settings.checked_fields import names
from quark_onnx.graph import Model
from quark_onnx.graph.view import is_op
from quark_onnx.quantsim.common.defs import QuantizationDataType

FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "providers": ((None, ["CPUExecutionProvider"], ("CPUExecutionProvider",)), "simulations run on the processor"),
    "use_cuda": ((False,), "simulations run on the processor"),
    "device": ((None,), "there is no GPU to choose: simulations run on the processor"),
    "default_data_type": (
        (QuantizationDataType.int,),
        'for floats give param_type="float16", activation_type="float16"',
    ),
    "rounding_mode": (("nearest",), "rounding is to nearest; adaround chooses better ones"),
    "use_symmetric_encodings": ((False,), "symmetry is a matter of config_file, or of a quantizer"),
    "path": ((None,), "nothing is stored meanwhile; say where results go in export"),
    "cache_id": ((None,), "every step is done anew; what is kept is in results_dir"),
    "prequantize_constants": ((True,), "parameters are stored as integers"),
    "force_activation_as": (
        (None,),
        "symmetric activations are signed, others are not: say which are in config_file",
    ),
    "session_options_kwargs": ((None, {}), "of the options of a session only `threads` can be chosen"),
}
"""Argument → what holds here, and may be said, and why nothing else can."""

FIXED_IN_QDQ = ("prequantize_constants", "force_activation_as")
"""Those of functions that make a QDQ model."""


def refuse(function: str, said: Mapping[str, object], fixed: Collection[str], known: Iterable[str] = ()) -> None:
    """Pass over what says no more than what holds here.

    Args:
        function: that was called so.
        said: arguments that it does not have.
        fixed: those of AIMET's that are in FIXED.
        known: names of those that it has.

    Raises:
        ConfigError: one asks for something else, or is no argument of AIMET's.
    """
    for name, value in said.items():
        if name not in fixed:
            raise ConfigError(f"{function} has no argument {name!r}{nearest(name, [*known, *fixed])}")
        allowed, why = FIXED[name]
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise ConfigError(f"{name}={value!r} cannot be had: {why}; leave it out")


def as_folder(field: str, said: object) -> Path:
    """Where files go.

    Raises:
        ConfigError: it is no path.
    """
    if not isinstance(said, (str, Path)):
        raise ConfigError(f"{field} must be the path of a folder, not {said!r}")
    return Path(said)


def file_place(path: object, prefix: object) -> Path:
    """Where files of a name lie that differ in their ends.

    Raises:
        ConfigError: path or prefix is none.
    """
    place = as_folder("path", path)
    if not isinstance(prefix, str) or not prefix:
        raise ConfigError(f"filename_prefix must be the name of the files, without their ends, not {prefix!r}")
    return place / prefix


def layers_of(model: Model) -> list[str]:
    """Names of the layers of a model."""
    return [node.name or "" for node in model.graph if is_op(node, *LAYERS)]


def entries(field: str, said: object, what: str) -> list[Any]:
    """What a list, or another collection, holds.

    Raises:
        ConfigError: it is none; a text is not a list of letters.
    """
    if isinstance(said, str) or not isinstance(said, Iterable):
        raise ConfigError(f"{field} must be a list of {what}, not {said!r}")
    return list(said)


def several(field: str, said: object) -> tuple[str, ...]:
    """Names, of which there may be one, or any collection.

    Raises:
        ConfigError: they are no names.
    """
    return names(field, [said] if isinstance(said, str) else entries(field, said, "names"))


def layer_names(field: str, asked: Collection[str], layers: Collection[str]) -> tuple[str, ...]:
    """Names that are all of layers.

    Raises:
        ConfigError: one is not.
    """
    wanted = names(field, sorted(asked) if isinstance(asked, (set, frozenset)) else asked)
    for node in wanted:
        if node not in layers:
            raise ConfigError(f"{field}: the model has no layer {node!r}{nearest(node, layers)}")
    return wanted


def one_of(default: Any, **named: Any) -> Any:
    """The value that was given under one of several names for the same thing; None counts as not given.

    Raises:
        ConfigError: two names have different values.
    """
    given = {name: value for name, value in named.items() if value is not None}
    first = next(iter(given.values()), default)
    if any(value is not first and value != first for value in given.values()):
        said = " and ".join(f"{name}={value!r}" for name, value in given.items())
        raise ConfigError(f"{' and '.join(named)} are the same, but given as {said}; give one of them")
    return first
