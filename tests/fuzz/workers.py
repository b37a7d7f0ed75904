"""A process that judges cases one after the other; it is replaced when it hangs or crashes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection
from types import TracebackType

from checks import Finding, judge
from random_models import Case, random_case
from random_settings import Settings, random_settings

from quark_onnx.core.threads import VARIABLE

SECONDS = 60.0
"""After which a case hangs: the slowest takes a tenth of it."""

LIFE = 500
"""Cases after which a process is replaced, for its memory."""

Job = int | tuple[Case, Settings]
"""A seed, or a case that is made smaller."""


class Worker:
    """`worker(seed)` → what is wrong, or None; a context manager that ends its process."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._done = 0

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __call__(self, job: Job) -> Finding | None:
        """Judge one case."""
        if self._process is None or self._done >= LIFE:
            self._start()
        assert self._pipe is not None and self._process is not None
        self._done += 1
        try:
            self._pipe.send(job)
            if not self._pipe.poll(self.seconds):
                self._end()
                return Finding("hang", "", f"no answer after {self.seconds:.0f} s")
            found: Finding | None = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self._end()
            return Finding("crash", str(code), f"the process ended with {code}")
        return found

    def _start(self) -> None:
        self._end()
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._done = 0

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection) -> None:
    """Answer until the other side goes away; with one thread, as small models gain nothing by more."""
    os.environ[VARIABLE] = "1"
    with (
        contextlib.suppress(EOFError, KeyboardInterrupt),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        while True:
            pipe.send(_judged(pipe.recv()))


def _judged(job: Job) -> Finding | None:
    try:
        case, settings = (random_case(job), random_settings(job)) if isinstance(job, int) else job
        return judge(case, settings)
    except Exception as error:  # of the checks themselves: to be seen, not to end the run
        return Finding("checks", f"{type(error).__name__}", traceback.format_exc())
