"""A model's own process: started, watched, and ended with everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from quark_onnx.child_environment import child_environment
from quark_onnx.core.threads import VARIABLE

POLL = 0.1
"""Seconds between two looks at the process."""

WORDS = 2
"""Seconds that a process gets to write its last words."""

FAILED = 70
"""Exit code of a child that could not do its work for a reason of its own, which it leaves in its status."""

Kind = Literal["done", "crash", "timeout", "memory", "stopped"]
Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Limits:
    """What one process may use.

    memory   bytes, of it and the processes below it, memory-mapped files left out; 0: any
    threads  cores it may keep busy; 0: all
    timeout  seconds; None: any
    """

    memory: int = 0
    threads: int = 0
    timeout: float | None = None


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    kind     done: it says itself what became of the model, in `out/result.json`
    reason   in words, unless done
    status   what it told last, with the stage it was in
    """

    kind: Kind
    reason: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def stage(self) -> str:
        """The stage it was in."""
        return str(self.status.get("stage", "start"))


def run_child(folder: Path, limits: Limits, stopped: Callable[[], bool], tell: Tell, *, pages: bool = False) -> Ending:
    """Run `quark_onnx.zoo.process_main` on `folder`, which holds `entry.json`; its words go to `log.txt` there.

    Args:
        stopped: asked now and then; when it says yes, the process is killed.
        tell: given what the process says of its stage whenever that changes.
        pages: have it make the page of the model, too.
    """
    command = [
        sys.executable,
        "-m",
        "quark_onnx.zoo.process_main",
        str(folder),
        str(limits.memory),
        *(["pages"] if pages else []),
    ]
    start = time.monotonic()
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(limits.threads, folder),
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends: the child then ends as well
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    watch = _Watch(folder, process, limits, tell)
    try:
        cut = watch.until_end(stopped)
    finally:
        _kill(process)
        process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
    kind, reason = cut or _ending(process.returncode, watch.status)
    return Ending(kind, reason, watch.status, round(time.monotonic() - start, 3), watch.peak)


class _Watch:
    """What is seen of a process while it runs."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], limits: Limits, tell: Tell) -> None:
        self.file, self.process, self.limits, self.tell = folder / "status.json", process, limits, tell
        self.seen: int | None = None
        self.status: Mapping[str, Any] = {}
        self.peak = 0

    def until_end(self, stopped: Callable[[], bool]) -> tuple[Kind, str] | None:
        """Wait; why the process has to be killed, None if it ended by itself."""
        limits, end = self.limits, time.monotonic() + (self.limits.timeout or float("inf"))
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(POLL)
                self._look()
                return None
            self._look()
            self.peak = max(self.peak, memory_of(self.process.pid))
            if limits.memory and self.peak > limits.memory:
                return "memory", f"it needs more than {size_text(limits.memory)} of memory; {MORE_MEMORY}"
            if time.monotonic() > end:
                self._last_words()
                return "timeout", f"it takes longer than {limits.timeout:g} s; give it more time with timeout"
            if stopped():
                return "stopped", "the run was stopped"

    def _last_words(self) -> None:
        """Have the process tell in its log what it was doing: so does Python's fault handler before an abort."""
        if hasattr(os, "killpg"):  # elsewhere the signal would end it without a word
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(WORDS)

    def _look(self) -> None:
        try:
            changed = self.file.stat().st_mtime_ns
            if changed != self.seen:
                self.status, self.seen = json.loads(self.file.read_text("utf-8")), changed
                self.tell(self.status)
        except (OSError, ValueError):  # not there yet, or being replaced
            pass


MORE_MEMORY = "give each worker more with --memory, which may mean fewer --workers"


def _ending(code: int, status: Mapping[str, Any]) -> tuple[Kind, str]:
    if code == 0:
        return "done", ""
    if status.get("error") == "memory":
        return "memory", f"it ran out of memory; {MORE_MEMORY}"
    if code == FAILED:
        return "crash", str(status.get("error", ""))
    if code < 0:
        name = signal.Signals(-code).name
        cause = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return "crash", f"its process was ended by {name}{cause}; the log has its last words"
    return "crash", f"its process ended with exit code {code}; the log has its last words"


def size_text(size: int) -> str:
    """Bytes as a person would say them."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.3g} {unit}"
    return f"{size / 1000:.3g} kB"


def _environment(threads: int, folder: Path) -> dict[str, str]:
    """The environment: this package where it is, unbuffered words, and as many threads as allowed.

    Temporary files go to the folder, and with it, also when the process is killed.
    """
    words = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PYTHONFAULTHANDLER": "1"}
    found = child_environment(TMPDIR=str(folder), **words)
    if threads:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", VARIABLE):
            found[name] = str(threads)
    return found


def _family(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        yield parent
        yield from parent.children(recursive=True)


def memory_of(pid: int) -> int:
    """Bytes that a process and those below it hold, files that are mapped or shared left out: they can be let go."""
    total = 0
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):
            info = process.memory_info()
            total += info.rss - getattr(info, "shared", 0)
    return total


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process, what is below it, and its group, which holds what lost its parent."""
    for one in list(_family(process.pid)) if process.poll() is None else []:
        with contextlib.suppress(psutil.Error):
            one.kill()
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
