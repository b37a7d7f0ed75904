"""Fields of a JSON object, each checked as it is read; what is wrong is named by file, path and tensor."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError, nearest
from quark_onnx.core.json_reading import finite


@dataclass(frozen=True)
class Spot:
    """A place in a file: its value, its JSON path, and the tensor that the entry is about."""

    file: str
    path: str
    value: Any
    tensor: str | None = None

    def fail(self, message: str) -> NoReturn:
        """Raise PlanError: file, path, tensor, and the message."""
        about = f" of tensor {self.tensor!r}" if self.tensor else ""
        raise PlanError(f"{self.file}: {self.path or 'the file'}{about}: {message}")

    def __getitem__(self, key: str | int) -> Spot:
        """The member of an object or a list, which is there."""
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if self.path else key
        return replace(self, path=f"{self.path}{step}", value=self.value[key])

    def __iter__(self) -> Iterator[Spot]:
        return (self[i] for i in range(len(self.value)))

    def of(self, tensor: str) -> Spot:
        """The same place, which is about this tensor."""
        return replace(self, tensor=tensor)

    def fields(self, needed: Collection[str], others: Collection[str] = ()) -> Mapping[str, Any]:
        """The object, which has all of the needed fields and no foreign ones."""
        if not isinstance(self.value, Mapping):
            self.fail(f"must be an object, not {_show(self.value)}")
        for key in needed:
            if key not in self.value:
                self.fail(f"has no field {key!r}, which is needed")
        for key in self.value:
            if key not in needed and key not in others:
                self.fail(f"field {key!r} is foreign here{nearest(str(key), (*needed, *others))}")
        return self.value

    def entries(self) -> Sequence[Any]:
        """The list, which has entries."""
        if not isinstance(self.value, list | tuple) or not self.value:
            self.fail(f"must be a list that is not empty, not {_show(self.value)}")
        return self.value

    def text(self) -> str:
        """The text, which is not empty."""
        if not isinstance(self.value, str) or not self.value:
            self.fail(f"must be a text, not {_show(self.value)}")
        return self.value

    def one_of(self, known: Collection[Any]) -> Any:
        """One of the known values, of the same type: True is not 1."""
        for choice in known:
            if type(choice) is type(self.value) and choice == self.value:
                return choice
        if isinstance(self.value, str) and all(isinstance(choice, str) for choice in known):
            self.fail(f"unknown value {self.value!r}{nearest(self.value, known)}")
        return self.fail(f"must be {' or '.join(map(repr, known))}, not {_show(self.value)}")

    def whole(self, low: int, high: int) -> int:
        """The whole number, also where it is written as a float."""
        number = self.value
        usable = isinstance(number, int | float) and not isinstance(number, bool) and finite(number)
        if not usable or number != int(number) or not low <= number <= high:
            self.fail(f"must be a whole number from {low} to {high}, not {_show(number)}")
        return int(number)

    def real(self) -> float:
        """The finite number."""
        number = self.value
        if isinstance(number, bool) or not isinstance(number, int | float) or not finite(number):
            self.fail(f"must be a finite number, not {_show(number)}")
        return float(number)

    def positive(self) -> float:
        """The finite number above 0."""
        if self.real() <= 0:
            self.fail(f"must be a finite number above 0, not {_show(self.value)}")
        return float(self.value)

    def reals(self) -> NDArray[np.float64]:
        """Finite numbers above 0, in nested lists of equal lengths, or a single one."""
        return np.array(self._nested(Spot.positive), np.float64)

    def wholes(self, low: int, high: int) -> NDArray[np.int64]:
        """Whole numbers in nested lists of equal lengths, or a single one."""
        return np.array(self._nested(lambda spot: spot.whole(low, high)), np.int64)

    def _nested(self, check: Any) -> Any:
        if not isinstance(self.value, list | tuple):
            return check(self)
        parts = [spot._nested(check) for spot in self]
        shapes = [np.shape(part) for part in parts]
        for i, shape in enumerate(shapes):
            if shape != shapes[0]:
                self.fail(f"lists must have equal lengths: [0] has shape {shapes[0]}, [{i}] has shape {shape}")
        return parts if parts else self.fail("must be a list that is not empty, not []")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
