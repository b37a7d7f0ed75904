"""Whose fault it is that a graph cannot be looked at: that of a model on which onnxruntime fails, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quark_onnx.core.errors import QuarkError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model


@contextmanager
def blaming(model: Model, feed: Feed | None = None) -> Iterator[None]:
    """A block that looks at the graph of a model and takes it for valid: checkers let a lot pass.

    onnxruntime is asked where the block fails, not before: a session costs as much time and memory as the model.

    Args:
        feed: what the model is to run on, too.

    Raises:
        ModelError, DataError: the block fails, and onnxruntime cannot load the model, or run it.
    """
    try:
        yield
    except QuarkError:
        raise
    except Exception:
        runner = Runner(model)
        if feed is not None:
            runner(feed)
        raise
