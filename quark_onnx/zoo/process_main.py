"""The process of one model: `python -m quark_onnx.zoo.process_main FOLDER MEMORY [pages]`.

Whatever happens here costs one model.

FOLDER holds `entry.json`; the outputs go to `out/` below it, and `status.json` tells how far the work is. It ends at
once, with all processes below it, when the one that started it is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

OFTEN = 0.2
"""Seconds between two words on the same stage."""


class Status:
    """What this process tells of itself, in a file that is always whole."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "status.json"
        self.stage, self.last = "", 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Progress, as the quantizer tells it."""
        now = time.monotonic()
        name = stage.partition(" ")[0]
        if name != self.stage or now - self.last > OFTEN:
            self.stage, self.last = name, now
            self.write(stage=name, done=done, total=total)

    def write(self, **values: Any) -> None:
        """Replace the file."""
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(values), encoding="utf-8")
        os.replace(beside, self.file)

    def failed(self, error: str) -> None:
        """Why the process gives up."""
        self.write(stage=self.stage, error=error)


def _end_with_parent() -> None:
    """Wait for the end of standard input, which is that of the process that holds its other end; then end the group."""
    descriptor = os.dup(0)
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)  # nobody else may read what ends with the parent, or wait for it
    os.close(quiet)

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 1):
                pass
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _limit(memory: int) -> None:
    """No core dumps; and twice the memory is where allocations fail, before the watch of the parent sees them."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory and sys.platform == "linux":  # elsewhere the limit does not count mapped memory
            resource.setrlimit(resource.RLIMIT_DATA, (2 * memory, 2 * memory))


def main(folder: Path, *, pages: bool) -> int:
    """Convert; 0 if the result is in `out/`, also that of a model that cannot be converted."""
    from quark_onnx.core.errors import ResourceError
    from quark_onnx.core.resource_faults import told_as_such
    from quark_onnx.evaluators import EvaluatorKilled
    from quark_onnx.zoo.convert import convert
    from quark_onnx.zoo.entry import Entry
    from quark_onnx.zoo.process_watch import FAILED

    status = Status(folder)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    entry = Entry.from_json((folder / "entry.json").read_text("utf-8"))
    if Path(entry.home).is_dir():
        os.chdir(entry.home)
    try:
        with told_as_such():
            convert(entry, folder, status, pages=pages)
    except ResourceError as error:
        traceback.print_exc()
        status.failed("memory" if error.resource == "memory" else str(error))
        return FAILED
    except EvaluatorKilled as error:
        status.failed(str(error))
        return FAILED
    except Exception as error:
        traceback.print_exc()
        status.failed(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
        return FAILED
    return 0


if __name__ == "__main__":
    _end_with_parent()
    _limit(int(sys.argv[2]))
    sys.exit(main(Path(sys.argv[1]), pages="pages" in sys.argv[3:]))
