"""What a machine lacks, told as such: memory, disk, open files. Neither the model nor the data is to blame for it.

    error, or what caused it ─ its number, or the words of a library that has no numbers ─▶ ResourceError

Libraries tell of it in types of their own, and whoever reads a file takes any error for a fault of the file. So each
error is looked at once more where it leaves (`told_as_such`), and at once where it would be passed over (`let_out`).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quark_onnx.core.errors import QuarkError, ResourceError


@dataclass(frozen=True)
class Resource:
    """Something that can run out: how that is told, the way out, and how to know it, by number or by words."""

    lack: str
    way_out: str
    numbers: frozenset[int]
    words: re.Pattern[str]

    def lacking(self, error: BaseException) -> bool:
        """Whether this error says that it has run out."""
        if isinstance(error, QuarkError):  # ours may hold any name
            return False
        if isinstance(error, OSError):
            return error.errno in self.numbers or self.words.search(error.strerror or "") is not None
        return self.words.search(str(error)) is not None


def _words(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


_TEMPORARY = "TMPDIR names the folder for temporary files"

RESOURCES = {
    "memory": Resource(
        "the memory is not enough",
        "close other programs, or raise the limit of this process (ulimit -v), or use a machine that has more",
        frozenset({errno.ENOMEM}),
        _words(
            r"\bbad_?alloc",
            "bad allocation",
            "cannot allocate memory",
            "failed to allocate memory",
            "failed to serialize proto",  # protobuf has no other words for it
            "failed to map segment from shared object",
        ),
    ),
    "threads": Resource(
        "no thread can be started",
        "raise the limits of this process (ulimit -u, ulimit -v), or set QUARK_ONNX_THREADS=1",
        frozenset(),
        _words("can't start new thread", "pthread_create"),
    ),
    "disk": Resource(
        "the disk is full",
        f"free some space, or write elsewhere; {_TEMPORARY}",
        frozenset({errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])}),
        # onnxruntime has no other words for a file that it cannot write to the end
        _words("no space left on device", "disk quota exceeded", "protobuf serialization failed"),
    ),
    "files": Resource(
        "too many files are open",
        "raise the limit of this process (ulimit -n)",
        frozenset({errno.EMFILE, errno.ENFILE}),
        _words("too many open files"),
    ),
    "temporary files": Resource(
        "no temporary file can be written",
        f"free some space, or choose another folder: {_TEMPORARY}",
        frozenset(),
        _words("no usable temporary directory"),
    ),
}


def shortage(error: BaseException, path: Path | None = None, said: str = "") -> ResourceError | None:
    """The error that a user should see in place of this one; None where nothing has run out.

    Args:
        error: also one that was caused by another.
        path: the file that was being written.
        said: the words to tell it with, in place of the error's own.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ResourceError):
            return cause
        if isinstance(cause, QuarkError) and isinstance(cause.__cause__, MemoryError):
            return None  # whoever read a file has said which one asks for so much
        if isinstance(cause, MemoryError):
            return _told("memory", said or _first_line(cause), path)
        for name, resource in RESOURCES.items():
            if resource.lacking(cause):
                return _told(name, said or _first_line(cause), path)
        cause = cause.__cause__
    return None


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _told(name: str, said: str, path: Path | None) -> ResourceError:
    found = RESOURCES[name]
    where = f"{found.lack} for {path}" if path is not None else found.lack
    return ResourceError(f"{where} ({said[:200].rstrip('. ')}); {found.way_out}", name)


def let_out(error: Exception) -> None:
    """For whoever goes on without what failed: of a machine that lacks something the user has to know.

    Raises:
        ResourceError: it does.
    """
    found = shortage(error)
    if found is not None:
        raise found from error


@contextmanager
def told_as_such() -> Iterator[None]:
    """Around what a user calls: whatever leaves it because something has run out is a ResourceError.

    Raises:
        ResourceError: see above.
    """
    try:
        yield
    except ResourceError:
        raise
    except Exception as error:
        let_out(error)
        raise
