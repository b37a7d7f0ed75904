"""Ten models to INT8 in one go: `python convert.py [FOLDER]`. Run it again: what is done stays.

The same on the command line: python generate.py FOLDER; cp zoo.yaml judge.py FOLDER; quark-onnx zoo FOLDER/zoo.yaml -o
FOLDER/int8. Needs `pip install 'quark-onnx[cluster]'`; with the extra `report` there are pages, too.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from generate import generate

from quark_onnx.zoo import Event, ZooResult, convert_zoo

HERE = Path(__file__).parent


def tell(event: Event) -> None:
    """A line for each model that is done."""
    if event.outcome is not None:
        print(f"{event.name}: {event.state}{' as before' if event.outcome.kept else ''}", flush=True)


def convert(folder: Path) -> ZooResult:
    """Generate the models and convert them."""
    generate(folder)
    for name in ("zoo.yaml", "judge.py"):
        shutil.copy(HERE / name, folder)
    return convert_zoo(folder / "zoo.yaml", folder / "int8", workers=2, progress=tell)


def main(folder: str = "zoo") -> None:
    """Convert, and tell what came of it."""
    result = convert(Path(folder))
    for outcome in result.good:
        row = outcome.row
        size = row.bytes["quantized"] / row.bytes["float"]
        print(f"{row.name}: {row.least_sqnr:.1f} dB with {row.preset}, {size:.0%} of the size")
    for outcome in result.bad:
        print(f"{outcome.row.name} is {outcome.row.status}: {outcome.row.reason}")
    print(f"{len(result.good)} of {len(result.outcomes)} models are good; see {result.output}/results.jsonl")


if __name__ == "__main__":
    main(*sys.argv[1:])
