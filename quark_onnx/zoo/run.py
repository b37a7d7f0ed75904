"""A zoo from its manifest to its results: read, hand out, collect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Future, as_completed

from quark_onnx.zoo.cluster import connected
from quark_onnx.zoo.entry import Entry
from quark_onnx.zoo.events import Event, Told, ZooResult
from quark_onnx.zoo.manifest import read_zoo, with_timeout
from quark_onnx.zoo.page import write_index
from quark_onnx.zoo.rows import Outcome
from quark_onnx.zoo.store import locked, stop
from quark_onnx.zoo.task import STOPPED, Task

PATIENCE = 10
"""Seconds that workers of a cluster get to stop."""


def read(
    source: str | Path | Mapping[str, object],
    output: Path,
    defaults: Mapping[str, object] | None,
    timeout: float | None,
    *,
    strict: bool,
) -> list[Entry]:
    """The entries of a zoo; with `strict` a missing model is a problem as well."""
    return with_timeout(read_zoo(source, output.absolute(), defaults, strict=strict), timeout)


def run(
    entries: Sequence[Entry],
    output: Path,
    tell: Told,
    *,
    scheduler: str | None,
    workers: int | None,
    memory: str | None,
    threads: int | None,
    title: str,
    pages: bool,
) -> ZooResult:
    """Convert the entries, and make pages of them if `pages`; `title` is that of the zoo's.

    Ctrl-C ends the run in good order: what is done stays, what is not is left as it was.
    """
    with connected(scheduler, workers, memory, threads) as cluster, locked(output) as store:
        tasks = {e.name: Task(e, store, replace(cluster.limits, timeout=e.timeout), pages) for e in entries}
        tell(Event("", "start", total=len(tasks), slots=cluster.slots))
        topic = f"quark-onnx-zoo-{store.run}"
        cluster.listen(topic, partial(_heard, tell))
        found: dict[str, Outcome] = {}
        interrupted = False
        futures: dict[Any, Task] = {}
        try:
            for order, task in enumerate(tasks.values()):
                futures[cluster.submit(task, topic, order)] = task
            for outcome in _collected(futures):
                found[outcome.row.name] = outcome
                store.write_results(found[name] for name in tasks if name in found)
                tell(Event(outcome.row.name, outcome.row.status, outcome.row.stage, outcome=outcome))
        except KeyboardInterrupt:
            interrupted = True
            stop(store)
            found |= _stopped(futures, found)
        stopped = {name: Outcome(replace(task.row, status="stopped", reason=STOPPED)) for name, task in tasks.items()}
        outcomes = list((stopped | found).values())
        store.write_results(outcomes)
        if pages:
            write_index(output, outcomes, title)
    return ZooResult(output, tuple(outcomes), interrupted)


def _collected(futures: Mapping[Any, Task], timeout: float | None = None) -> Iterator[Outcome]:
    """What becomes of the tasks, as they end. One that a worker took with it when it died counts as failed."""
    for future in as_completed(futures, timeout=timeout):
        yield _outcome(future, futures[future])


def _outcome(future: Future[Outcome], task: Task) -> Outcome:
    try:
        outcome: Outcome = future.result()
        return outcome
    except Exception as error:  # dask's own, or a bug
        return task.lost(f"{type(error).__name__}: {error}; see the log of the cluster's workers")


def _stopped(futures: Mapping[Any, Task], found: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """What ends after the run was stopped: each worker sees that, and ends the process that it watches."""
    left = {future: task for future, task in futures.items() if task.entry.name not in found}
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome in _collected(left, PATIENCE):
            outcomes[outcome.row.name] = outcome
    except TimeoutError:
        pass
    return outcomes


def _heard(tell: Callable[[Event], None], status: Mapping[str, Any]) -> None:
    tell(
        Event(status["name"], "running", str(status.get("stage", "")), int(status.get("done", 0)), status.get("total"))
    )
