"""Proof that preparing changed nothing: both float models on real samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quark_onnx.core.errors import ModelError
from quark_onnx.core.operators import RANDOM
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model
from quark_onnx.graph.view import is_op
from quark_onnx.numerics.metrics import Sqnr

EQUAL_DB = 60.0
"""Float32 carries 144 dB; folding re-orders sums and costs some of it, a wrong fold leaves less than half of this."""

DOUBT = "the model is not deterministic: preparing could not be verified"


def verify(model: Model, prepared: Model, feeds: Sequence[Feed]) -> str | None:
    """Compare the outputs of the user's model and of the prepared one.

    The user's model runs twice on a sample only where it draws numbers, or where the outputs differ.

    Returns:
        A warning when nothing could be compared because the model itself gives two answers to one input.

    Raises:
        ModelError: onnxruntime refuses a model, or an output differs by more than rounding.
    """
    before = Runner(model, fuse=False)  # weights that are stored as integers are floats as they are written
    if any(is_op(node, *RANDOM) for node in model.graph.all_nodes()) and _wavers(before, feeds):
        return DOUBT
    names, known = before.outputs, [before(feed) for feed in feeds]
    del before  # two sessions on a large model would be twice its size
    after = _runner_of(prepared)
    ratios = {name: Sqnr() for name in names}
    for feed, expected in zip(feeds, known, strict=True):
        for name, x, y in zip(names, expected, after(feed), strict=True):
            if isinstance(x, np.ndarray) and x.dtype.kind == "f":
                ratios[name].add(x, y)
    del after
    worst = min(ratios, key=lambda name: ratios[name].db, default="")
    if not worst or ratios[worst].db >= EQUAL_DB:
        return None
    if _wavers(Runner(model, fuse=False), feeds):
        return DOUBT
    raise ModelError(
        f"folding changed output {worst!r} (only {ratios[worst].db:.0f} dB left); "
        "use optimize_model=False and report the model"
    )


def _wavers(run: Runner, feeds: Sequence[Feed]) -> bool:
    """Whether one session gives two answers to one input."""
    for feed in feeds:
        for x, again in zip(run(feed), run(feed), strict=True):
            if isinstance(x, np.ndarray) and not np.array_equal(x, again, equal_nan=x.dtype.kind == "f"):
                return True
    return False


def _runner_of(prepared: Model) -> Runner:
    """The prepared model, ready to run. That the user's own model loads is known here."""
    try:
        return Runner(prepared)
    except ModelError as error:
        raise ModelError(f"folding made a model that cannot run; use optimize_model=False ({error})") from error
