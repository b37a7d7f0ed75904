"""Names of another tool's package that are not in ours: an import of one says what there is instead."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn


class _Finder:
    """Asked for modules that nothing else finds."""

    def __init__(self, package: str, elsewhere: Mapping[str, str]) -> None:
        self.package, self.elsewhere = package, elsewhere

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None, so that Python says that there is no such module.

        Raises:
            ImportError: the other tool has it. Without the name of the module: `from package import name` goes on then.
        """
        package, _, name = fullname.rpartition(".")
        if package == self.package and name in self.elsewhere:
            raise ImportError(f"{package} has no {name}: {self.elsewhere[name]}")
        return None


def told_elsewhere(package: str, elsewhere: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package. Python looks for a module of a name that an attribute is not: that is told, too.

    Args:
        elsewhere: names, of modules too, and what there is instead.
    """
    sys.meta_path.append(_Finder(package, elsewhere))

    def __getattr__(name: str) -> NoReturn:
        instead = f": {elsewhere[name]}" if name in elsewhere else ""
        raise AttributeError(f"{package} has no {name!r}{instead}")

    return __getattr__
