"""Arguments of AIMET that have several names, or only one value that holds here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
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
    "session_options_kwargs": ((None, {}), "of the options of a session only `threads` can be chosen"),
}
"""Argument → what holds here, and may be said, and why nothing else can."""


def refuse(function: str, said: Mapping[str, object], known: Iterable[str]) -> None:
    """Pass over what says no more than what holds here.

    Args:
        function: that was called so.
        said: arguments that it does not have.
        known: names of those that it has.

    Raises:
        ConfigError: one asks for something else, or is no argument of AIMET's.
    """
    for name, value in said.items():
        if name not in FIXED:
            raise ConfigError(f"{function} has no argument {name!r}{nearest(name, [*known, *FIXED])}")
        allowed, why = FIXED[name]
        if value not in allowed:
            raise ConfigError(f"{name}={value!r} cannot be had: {why}; leave it out")


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
