"""A process that is killed between two steps of writing: nothing is done from then on, nothing is cleared away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from quark_onnx.core import atomic_files


class Killed(BaseException):
    """The end of the process."""


def killed_everywhere(job: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run the job again and again, killed before its first step, its second, …; yields how many it had done."""
    for steps in count():
        if not killed_after(steps, job, monkeypatch):
            return
        yield steps


def killed_after(steps: int, job: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the job until it has renamed or removed so many files; whether it had more to do."""
    left = steps

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*arguments)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", counted(os.replace))
        patched.setattr(os, "remove", counted(os.remove))
        patched.setattr(atomic_files, "_swapped", counted(atomic_files._swapped))
        patched.setattr(tempfile.TemporaryDirectory, "cleanup", lambda self: self._finalizer.detach())
        try:
            job()
        except Killed:
            return True
    return False
