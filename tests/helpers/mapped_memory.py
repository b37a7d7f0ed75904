"""How much of our temporary files is in the memory of this process."""

from __future__ import annotations

from pathlib import Path

SMAPS = Path("/proc/self/smaps")
PROC = SMAPS.exists()


def resident() -> int:
    """Bytes of mapped files of ours that count as memory."""
    found, ours = 0, False
    for line in SMAPS.read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            ours = "(deleted)" in rest
        elif ours and first == "Rss:":
            found += int(rest[0]) << 10
    return found
