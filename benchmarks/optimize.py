"""`optimize` against the searches of its peers, for the same budget: `python benchmarks/optimize.py [SUBJECT …]`.

    python benchmarks/optimize.py
    python benchmarks/optimize.py resnet20-cifar10 --way optimize grid

A line of JSON for each subject and way, see `searches.py`: evaluations that it took, seconds, size, what was lost.
"""

from __future__ import annotations

import argparse
import json
from itertools import product

from measure import machine, searched

SUBJECTS = ("mobilenet-imagenet", "resnet20-cifar10")
WAYS = ("optimize", "grid", "revert", "lower")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=WAYS)
    args = parser.parse_args()
    print(json.dumps(machine()), flush=True)
    for subject, way in product(args.subjects or SUBJECTS, args.way):
        print(json.dumps(searched(subject, way)), flush=True)


if __name__ == "__main__":
    main()
