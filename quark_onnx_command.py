"""The `quark-onnx` command. It stands beside the package, whose import takes a second: Ctrl-C must count in that, too.

Exit code 130 and not a word, whenever it comes: while modules load, at work (twice as well), and on the way out.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130


def main() -> None:
    """The entry point."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # a shell's background job hears nothing
        return _run()
    signal.signal(signal.SIGINT, _leave)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Python's own end would make it deadly again
    sys.unraisablehook = _raise_again
    try:
        return _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, _leave)


def _run() -> None:
    from quark_onnx.cli import main

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing is begun, or all is done: there is nothing to clear away."""
    os._exit(INTERRUPTED)


def _raise_again(failed: UnraisableHookArgs) -> None:
    """Ctrl-C during a finalizer, where Python drops exceptions, comes again a moment later."""
    if isinstance(failed.exc_value, KeyboardInterrupt):
        again = threading.Timer(0.01, _thread.interrupt_main)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(failed)
