"""Mutable objects with fixed fields: a name that there is not is an error that says which one is nearest."""

from __future__ import annotations

from inspect import Parameter, Signature, signature
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest


class _Checked(type):
    """Refuses arguments that do not fit in our words; classes whose constructor takes any name see to that."""

    @property
    def __signature__(cls) -> Signature:
        """What `help` and editors show, and what is checked: the constructor's."""
        whole = signature(cls.__init__)  # type: ignore[misc]
        return whole.replace(parameters=[*whole.parameters.values()][1:])

    def __call__(cls, *args: Any, **given: Any) -> Any:
        expected = cls.__signature__
        parameters = expected.parameters.values()
        if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
            _refuse(cls, given, [parameter.name for parameter in parameters])
        try:
            expected.bind(*args, **given)
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error
        return super().__call__(*args, **given)


class StrictFields(metaclass=_Checked):
    """Base of dataclasses whose attributes can be set, and no others."""

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse(type(self), (name,), self.__dataclass_fields__)  # type: ignore[attr-defined]
        super().__setattr__(name, value)


def _refuse(kind: type, given: Any, known: Any) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(f"{kind.__name__} has no {name!r}{nearest(name, known)}")
