"""Another quantizer, measured as ours is: `python benchmarks/peer_worker.py PEER SUBJECT OUTPUT.onnx SCHEME SAMPLES`.

Peers are functions of `peers.py`. The interpreter is one that has the peer; it need not have what we need.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import peers
from measure import leave_folder, metered
from subjects import material


def main(peer: str, subject: str, output: str, scheme: str, samples: str) -> None:
    """Quantize and print the measurements."""
    leave_folder()
    steps = getattr(peers, peer)(*material(subject, int(samples)), scheme, Path(output))
    next(steps)  # imports
    with metered() as found:
        next(steps, None)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
