"""Clients of dask.distributed: of a scheduler that is there, or of one of our own with processes of this machine."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distributed import Client, LocalCluster

from quark_onnx.child_environment import child_environment
from quark_onnx.core.errors import ConfigError, ResourceError
from quark_onnx.core.threads import VARIABLE

NOBODY = "127.0.0.1:0"
"""Where dask's pages of a local cluster are, which nobody looks at: not for other machines, at a port that is free."""

PATIENCE = 20
"""Seconds to wait for the scheduler."""

START = 120
"""Seconds that processes of this machine may take until they are ready."""


@contextlib.contextmanager
def existing(address: str) -> Iterator[Client]:
    """The scheduler at an address, which has workers.

    Raises:
        ConfigError: it does not answer, or has none.
    """
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no scheduler answers at {address!r} ({error}); start one with `dask scheduler`, and give the address "
            "that it prints, such as tcp://10.0.0.1:8786"
        ) from error
    with client:
        if not client.nthreads():
            raise ConfigError(f"the scheduler at {address!r} has no workers; start some with `dask worker {address}`")
        yield client


@contextlib.contextmanager
def own_processes(count: int) -> Iterator[Client]:
    """A scheduler in this process, and so many workers with a thread each; one that ends is started again.

    They are started by command, as `multiprocessing` would run the user's script once more in each.

    Raises:
        ResourceError: they do not start.
    """
    with (
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": NOBODY},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        _started(cluster.scheduler_address, count) as log,
        Client(cluster) as client,
    ):
        try:
            client.wait_for_workers(count, timeout=START)
        except TimeoutError as error:
            *_, last = ("nothing is known", *log.read_text("utf-8", "replace").splitlines())
            raise ResourceError(f"{count} workers have not started within {START} s: {last}; give fewer") from error
        yield client


@contextlib.contextmanager
def _started(address: str, count: int) -> Iterator[Path]:
    """The file that takes what the workers say."""
    with tempfile.TemporaryDirectory(prefix="quark_onnx-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "workers.log"
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", str(count)]
        command += ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--local-directory", folder]
        command += ["--death-timeout", str(PATIENCE)]
        environment = child_environment(**{VARIABLE: "1", "OMP_NUM_THREADS": "1"})
        with log.open("wb") as said:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
            try:
                yield log
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                process.kill()
                process.wait()
