"""What a user's forward pass is given while encodings are computed: it runs the model, and looks at the activations."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import DataError, nearest
from quark_onnx.engine.calibration_data import told
from quark_onnx.engine.data_variety import Variety
from quark_onnx.engine.fitted_values import refuse_infinite
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.runner import Runner, input_specs
from quark_onnx.graph import Model, io
from quark_onnx.numerics.ranges.calibration_statistics import Ends, Statistics, Tally

Array = NDArray[Any]

logger = logging.getLogger("quark_onnx")


class ObservingSession:
    """Like an onnxruntime.InferenceSession; every run adds to the statistics of the tensors that are observed."""

    def __init__(self, model: Model, tensors: Mapping[str, str]) -> None:
        """Of a model in which parameters are quantized and activations are not.

        Args:
            tensors: that are observed, and for each the one whose values count, see `passed`.
        """
        inputs = {value.name for value in model.graph.inputs}
        self._inputs = {spec.name: spec for spec in input_specs(model)}
        self._outputs = [value.name or "" for value in model.graph.outputs]
        self._tensors = tensors
        shown = io.with_outputs(model, [t for t in tensors.values() if t not in inputs])
        self._runner = Runner(shown, optimized=True, new_data=True)
        self._tallies = {tensor: Tally() for tensor in tensors}
        self._ends: dict[str, Ends] = {}
        self.runs = 0
        self.variety = Variety()

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Array], run_options: Any = None) -> Any:
        """Outputs for one feed, as InferenceSession.run has them.

        Raises:
            DataError: the model fails on the feed, or has no such input or output; a number is not finite.
        """
        self._check(input_feed)
        wanted = list(output_names or self._outputs)
        for name in wanted:
            if name not in self._outputs:
                raise DataError(f"the model has no output {name!r}{nearest(name, self._outputs)}")
        found = dict(input_feed) | dict(zip(self._runner.outputs, self._runner(dict(input_feed)), strict=True))
        for tensor, tally in self._tallies.items():
            self._widen(tensor, tally.add(found[self._tensors[tensor]]))
        self.runs += 1
        self.variety.add({name: np.asarray(array) for name, array in input_feed.items()})
        return [found[name] for name in wanted]

    def _check(self, feed: object) -> None:
        """Raise for what is no feed, and for numbers of which a range would be none: −∞ may be a mask.

        Raises:
            DataError: it is so.
        """
        if not isinstance(feed, Mapping):
            raise DataError(f"session.run takes a dict of arrays by input name, not {type(feed).__name__}")
        for name, value in feed.items():
            if name not in self._inputs:
                raise DataError(f"the model has no input {name!r}{nearest(str(name), self._inputs)}")
            refuse_infinite(np.asarray(value), self._inputs[name], f"run {self.runs} of the session", masks=True)

    def get_inputs(self) -> Any:
        """Names, shapes and types of the inputs."""
        return self._runner.session.get_inputs()

    def get_outputs(self) -> Any:
        """Names, shapes and types of the outputs."""
        return self._runner.session.get_outputs()[: len(self._outputs)]

    def statistics(self) -> dict[str, Statistics]:
        """What was seen; the session must not run any more."""
        return {t: tally.statistics(*self._ends.get(t, (0.0, 0.0))) for t, tally in self._tallies.items()}

    def refuse_idle(self, who: str, session: str) -> None:
        """Raise if nothing can be learnt of what was run; warn of data that say little.

        Args:
            who: was to run the session.
            session: what it is called there.

        Raises:
            DataError: nothing was run, or only on empty arrays.
        """
        if not self.runs:
            raise DataError(f"{who} never ran the session it was given: call {session}.run(None, feed) in it")
        if self._tensors and not self._ends:
            names = ", ".join(repr(value.name) for value in self.get_inputs())
            raise DataError(
                f"{who} ran the session {self.runs} times and on empty arrays only (inputs {names}); give it at least "
                "one sample"
            )
        for warning in self.variety.warnings():
            logger.warning(warning)

    def _widen(self, tensor: str, new: Ends | None) -> None:
        if new is not None:
            lo, hi = self._ends.get(tensor, new)
            self._ends[tensor] = min(lo, new[0]), max(hi, new[1])


class WaitingSession:
    """Like an onnxruntime.InferenceSession of a simulation whose encodings are open: it tells inputs and outputs.

    It runs as soon as the simulation does: while encodings are computed, and when there are some.
    """

    def __init__(self, model: Model, running: Callable[[], Any]) -> None:
        """Of a float model; `running` is the session that runs, or raises what is missing."""
        self._model = model
        self._running = running

    @cached_property
    def _float(self) -> Any:
        return Runner(self._model).session

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Array], run_options: Any = None) -> Any:
        """Outputs for one feed, as InferenceSession.run has them.

        Raises:
            ConfigError: the encodings are still open.
        """
        return self._running().run(output_names, input_feed, run_options)

    def get_inputs(self) -> Any:
        """Names, shapes and types of the inputs."""
        return self._float.get_inputs()

    def get_outputs(self) -> Any:
        """Names, shapes and types of the outputs."""
        return self._float.get_outputs()


def run_forward(session: ObservingSession, source: object, args: object, model: Model) -> None:
    """Run a user's forward pass, or the samples.

    Args:
        source: called as f(session), or f(session, args) if there are any or it takes two; or samples for `model`.

    Raises:
        DataError: nothing was run, or only on empty arrays.
    """
    if not is_callback(source):
        for feed in told(samples_of(model, source)):
            session.run(None, feed)
        return
    given = (session, args) if args is not None or takes_two(source) else (session,)
    source(*given)
    session.refuse_idle("forward_pass_callback", "session")


def is_callback(source: object) -> TypeGuard[Callable[..., Any]]:
    """Whether it is called with a session; readers may be callable, too."""
    return callable(source) and not hasattr(source, "get_next")


def takes_two(callback: Callable[..., Any]) -> bool:
    """Whether a function can be called with two arguments."""
    try:
        inspect.signature(callback).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True
