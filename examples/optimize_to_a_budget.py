"""The smallest model that still reads digits: `python optimize_to_a_budget.py`.

Looks for the smallest file of the model of digits whose accuracy falls by half a point at most. The evaluator gives a
number for each image, so that the search knows how much of a difference is chance. Run the script again: what was tried
is in digits_search, and nothing is tried twice.
Needs `pip install 'quark-onnx[demo,report]'`.
"""

from __future__ import annotations

import numpy as np
import onnxruntime

from quark_onnx.demo import MODEL, digits
from quark_onnx.optimize import Budget, Trial, optimize
from quark_onnx.report.optimize_page import write_search

TEACHING, _, IMAGES, LABELS = digits()
STEERS, JUDGES = slice(0, None, 2), slice(1, None, 2)  # images that the search looks at, and others


def right(model: str, which: slice = STEERS) -> np.ndarray:
    """The evaluator: 1 for each image that the model of this path reads right, 0 for the others."""
    session = onnxruntime.InferenceSession(model)
    (logits,) = session.run(None, {session.get_inputs()[0].name: IMAGES[which]})
    return (logits.argmax(1) == LABELS[which]).astype(float)


def begin(trial: Trial) -> None:
    """A trial begins, or is the best so far."""
    best = "" if trial.best is None else f" (best so far: {trial.best.size / 1000:.0f} kB)"
    print(f"  {trial.number} {trial.name}{best}")


def main() -> None:
    """Search, and judge what was found on images that had no part in it."""
    found = optimize(
        MODEL,
        TEACHING[:200],
        Budget(max_drop=0.005),
        output="digits_small.onnx",
        folder="digits_search",
        evaluate=right,
        told=begin,
    )
    print(f"{found.float_size / 1000:.0f} kB → {found.point.size / 1000:.0f} kB: {found.reason}")
    print(f"on other images: {right(str(MODEL), JUDGES).mean():.3f} → {right('digits_small.onnx', JUDGES).mean():.3f}")
    print("page:", write_search(found, "digits_search/report.html", "digits"))


if __name__ == "__main__":
    main()
