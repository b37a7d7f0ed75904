"""Batches of a data loader, as a script of AIMET has them, made into feeds of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.engine.calibration_data import Feed, told
from quark_onnx.engine.data_sources import Item, Source, source_of
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import Model
from quark_onnx.quantsim.calibration_session import ObservingSession

ForwardFn = Callable[[Any, Any], Any]


def feeds_of(loader: object, batches: int, forward: ForwardFn | None, model: Model) -> Sequence[Feed]:
    """The feeds of the first batches.

    Args:
        loader: yields batches: a dict of arrays by input name, an array, or a tuple with one array for each input.
            Tensors of other libraries are arrays, and labels are not read where it is sure that they are none.
        batches: how many are used.
        forward: called as f(session, batch): it runs the session on what it makes of the batch, and that are the feeds.

    Raises:
        ConfigError: there are fewer batches.
        DataError: a batch does not fit the model, or `forward` does not run the session.
    """
    specs = input_specs(model)
    source = source_of(loader, specs)
    items = _counted(islice(source.start(), batches), batches)
    found = items if forward is None else _recorded(items, forward, model)
    return keep(told(samples_of(model, Source(lambda: map(Item, found)))))


class RecordingSession(ObservingSession):
    """Like an onnxruntime.InferenceSession of the float model; it keeps what it is run on."""

    def __init__(self, model: Model) -> None:
        """Of a float model."""
        super().__init__(model, {})
        self.feeds: list[Feed] = []

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]], run_options: Any = None
    ) -> Any:
        """Outputs for one feed, which is copied: a loader may write its next batch into the same arrays.

        Raises:
            DataError: the model fails on the feed, or has no such output.
        """
        found = super().run(output_names, input_feed, run_options)
        self.feeds.append({name: np.array(array) for name, array in input_feed.items()})
        return found


def _counted(items: Iterator[Item], batches: int) -> Iterator[object]:
    count = 0
    for item in items:
        count += 1
        yield item.value
    if count < batches:
        raise ConfigError(f"num_batches is {batches}, but the data_loader has {count}; give at most as many as it has")


def _recorded(batches: Iterator[object], forward: ForwardFn, model: Model) -> Iterator[Feed]:
    session = RecordingSession(model)
    for index, batch in enumerate(batches):
        forward(session, batch)
        if not session.feeds:
            raise DataError(
                f"forward_fn never ran the session it was given for batch {index}: call session.run(None, feed) in it"
            )
        yield from session.feeds
        session.feeds.clear()
