"""What a runtime is: how to load a model, and all that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from quark_onnx.core.records import Latency
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.ledger_rows import Inside, Row
from quark_onnx.engine.runner import Arrays, fit
from quark_onnx.engine.runtimes.turns import ROUNDS, timed
from quark_onnx.engine.saturation_certificate import Certificate
from quark_onnx.graph import Model

Run = Callable[[Feed], Arrays]
"""A loaded model: the outputs for one feed, in arrays that are the caller's."""


class Load(Protocol):
    """Makes a model ready to run.

    Args:
        model: is not kept.
        outputs: names of the tensors to return, inner ones, too; default the graph outputs.
        threads: of one run; 0: as many as this process may use, or what the runtime thinks best.

    Raises:
        ModelError, ResourceError: the runtime cannot load it, or, called, cannot run it; the message holds its words.
        DataError: called, it cannot run on this feed.
    """

    def __call__(self, model: Model, outputs: Sequence[str] | None = None, *, threads: int = 0) -> Run: ...


@dataclass(frozen=True)
class Executed:
    """A node of the graph that a runtime makes of a model.

    nodes      of the model, whose work it does, as far as the runtime tells: by name, in order of the graph
    op_type    what the runtime calls it
    primitive  its kernel
    precision  type of what it computes on, in the words of the runtime: u8, i8, f32
    outputs    types of what it writes
    """

    nodes: tuple[str, ...]
    op_type: str
    primitive: str
    precision: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Runtime:
    """One that is installed.

    name            in the table of targets
    title           for messages
    version         its own
    load            see `Load`
    executed_nodes  of a model, in the order in which they run
    ledger          a row for every node of the parts of a prepared model, from what it makes of the quantized one
    kernel_times    microseconds of one run by node, on one thread, see `engine.kernel_times`
    certify         whether each node that it executes on integers computes the same on every x64 processor
    without_vnni    a model as x64 without VNNI runs it, for so long as the context is open; raises ModelError where
                    that cannot be had here
    run_file        loads a file and runs it once on a feed, on so many threads, and nothing else
    """

    name: str
    title: str
    version: str
    load: Load
    executed_nodes: Callable[[Model], list[Executed]]
    ledger: Callable[[Sequence[Inside], Model, Target], list[Row]]
    kernel_times: Callable[[Model, Iterable[Feed]], dict[str, float]]
    certify: Callable[[Model], dict[str, Certificate]]
    without_vnni: Callable[[Model, Sequence[str]], AbstractContextManager[Run]]
    run_file: Callable[[Path, Feed, int], None]

    @property
    def full_title(self) -> str:
        """With its version."""
        return f"{self.title} {self.version}"

    def run(self, model: Model, feeds: Iterable[Feed], outputs: Sequence[str] | None = None) -> Iterator[Arrays]:
        """The outputs for each feed, which is given in the types of the model."""
        loaded = self.load(model, outputs)
        return (loaded(fit(feed, model)) for feed in feeds)

    def latency(
        self, original: Model, quantized: Model, feeds: Sequence[Feed], *, rounds: int = ROUNDS, threads: int = 1
    ) -> Latency:
        """Time both models on the feeds, in turn.

        Args:
            rounds: runs of each, fewer where that takes too long.
            threads: that the runtime may use; 0: its own choice.

        Raises:
            ModelError: it cannot load or run one of them.
        """
        runs = [self.load(model, threads=threads) for model in (original, quantized)]
        fitted = [[fit(feed, model) for feed in feeds] for model in (original, quantized)]
        first, second = timed(runs, fitted, rounds)
        batch = max((array.shape[0] for array in feeds[0].values() if array.ndim), default=1)
        return Latency(first.timing, second.timing, len(first.seconds), batch, threads, self.full_title)


@dataclass(frozen=True)
class Missing:
    """A runtime that is not installed, or does not start: nothing is run there.

    name    in the table of targets
    title   for messages
    reason  what is missing, and the way out
    """

    name: str
    title: str
    reason: str

    @property
    def told(self) -> str:
        """That it is missing, why, and the way out."""
        return f"{self.title} is not installed ({self.reason})"
