"""The workers: a cluster of this machine's own, or one that is there, both of dask.distributed.

A worker only starts and watches the processes of the models, so it is a thread. Files must have the same paths on all
machines of a cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psutil
from dask.utils import parse_bytes
from distributed import Client, Future, LocalCluster, get_worker

from quark_onnx.cluster.connections import NOBODY, existing
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.threads import cores
from quark_onnx.zoo.process_watch import Limits
from quark_onnx.zoo.rows import Outcome
from quark_onnx.zoo.task import Task

SHARE = 0.9
"""Part of the memory that models may have, on a machine or a worker."""


@dataclass(frozen=True)
class Cluster:
    """Where models are converted.

    client  of the scheduler
    limits  of one model; a 0 is filled in by the worker, from what it has
    slots   models at a time
    """

    client: Any
    limits: Limits
    slots: int

    def submit(self, task: Task, topic: str, order: int) -> Future[Outcome]:
        """Hand out a task; what it tells goes to `topic`."""
        key = f"{task.entry.name}-{task.store.run}"
        future: Future[Outcome] = self.client.submit(work, task, topic, key=key, pure=False, priority=-order)
        return future

    def listen(self, topic: str, hear: Callable[[Any], None]) -> None:
        """Hear what the tasks tell."""
        self.client.subscribe_topic(topic, lambda event: hear(event[1]))


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int | None, memory: str | None, threads: int | None) -> Iterator[Cluster]:
    """The cluster at `scheduler`, or a new one on this machine with so many workers.

    Args:
        memory: of one model, such as "4GB"; None: its share of what there is.
        threads: cores of one model; None likewise.

    Raises:
        ConfigError: the scheduler does not answer, has no workers, or a number makes no sense.
    """
    size = _bytes(memory)
    if (workers is not None and workers < 1) or (threads is not None and threads < 1):
        raise ConfigError("a zoo needs at least one worker, and each worker a thread; give positive numbers")
    if scheduler is not None:
        if workers is not None:
            raise ConfigError("an existing cluster has workers already; leave out either scheduler or workers")
        with existing(scheduler) as client:
            slots = sum(client.nthreads().values())
            yield Cluster(client, Limits(size, threads or 0), slots)
        return
    count = workers or cores()
    limits = Limits(size or _share(count), threads or max(1, cores() // count))
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=count,
            processes=False,
            memory_limit=0,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": NOBODY},
            worker_dashboard_address=NOBODY,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Cluster(client, limits, count)


def _bytes(memory: str | None) -> int:
    if memory is None:
        return 0
    try:
        size = int(parse_bytes(memory))
    except ValueError as error:
        raise ConfigError(f"memory {memory!r} is no size; write 4GB or 800MB") from error
    if size < 1 << 20:
        raise ConfigError(f"memory {memory!r} is less than a megabyte; write 4GB or 800MB")
    return size


def _share(count: int) -> int:
    return int(SHARE * psutil.virtual_memory().total) // count


def work(task: Task, topic: str) -> Outcome:
    """What runs on a worker; limits that are open are filled in with its share of the machine."""
    worker = get_worker()
    slots, limits = worker.state.nthreads, task.limits
    own = worker.memory_manager.memory_limit
    memory = limits.memory or (int(SHARE * own) // slots if own else _share(slots))
    threads = limits.threads or max(1, (os.cpu_count() or 1) // slots)
    task = replace(task, limits=replace(limits, memory=memory, threads=threads))
    return task.run(lambda status: worker.log_event(topic, {**status, "name": task.entry.name}))
