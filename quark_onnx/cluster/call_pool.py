"""An executor whose calls are done by workers: for blocks of rows, which one function works on after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures import Future as Promise
from typing import Any

from distributed import Future

from quark_onnx.cluster.held_work import Sealed, Work, done, handed

Submit = Callable[..., Future[Any]]


class CallPool(Executor):
    """Has functions called by workers. What a function holds is sent once, as long as it is the same that is called.

    Args:
        submit: a task and what it is given.
        found: waits for the result of a task.
    """

    def __init__(self, submit: Submit, found: Callable[[Future[Any]], Any]) -> None:
        self._submit, self._found = submit, found
        self._function: Callable[..., Any] | None = None
        self._held: Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Promise[Any]:
        """See `Executor`; there is one argument, what is to be worked on."""
        if self._function is not fn:
            self._function, self._held = fn, self._submit(handed, Sealed(Work(Ready(fn))))
        return _Awaited(self._found, self._submit(done, self._held, Sealed(args[0])))

    def __reduce__(self) -> tuple[Any, ...]:
        """On a worker there is none: a function that holds this pool does all of its call there."""
        return type(None), ()


class Ready:
    """Makes a work of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self) -> Callable[..., Any]:
        return self._function


class _Awaited(Promise[Any]):
    """The result of a task, which is waited for when it is asked for."""

    def __init__(self, found: Callable[[Future[Any]], Any], task: Future[Any]) -> None:
        super().__init__()
        self._found, self._task = found, task

    def result(self, timeout: float | None = None) -> Any:
        """See `Future`."""
        return self._found(self._task)
