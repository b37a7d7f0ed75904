"""The crew that a user asks for; nothing of dask is imported where none is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec

from quark_onnx.core.errors import ConfigError
from quark_onnx.engine.crew import Crew


@contextlib.contextmanager
def opened_crew(workers: int | None, scheduler: str | None) -> Iterator[Crew | None]:
    """So many processes on this machine, or the workers of the scheduler at an address; None where neither is given.

    Raises:
        ConfigError: both are given, a number makes no sense, the extra is not installed, or no scheduler answers.
    """
    if workers is None and scheduler is None:
        yield None
        return
    if workers is not None and scheduler is not None:
        raise ConfigError("an existing cluster has workers already; leave out either scheduler or workers")
    if workers is not None and workers < 1:
        raise ConfigError(f"{workers} workers share no work; give a positive number, or leave workers out")
    if find_spec("distributed") is None:
        raise ConfigError("workers need distributed, which is not installed: pip install 'quark-onnx[cluster]'")
    from quark_onnx.cluster.connections import existing, own_processes
    from quark_onnx.cluster.dask_crew import DaskCrew

    with existing(scheduler) if scheduler is not None else own_processes(workers or 1) as client:
        yield DaskCrew(client)
