"""Processes that share work: in order, once each, and another does what a lost one was at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from quantized_models import feeds, graph
from shared_work import working

from quark_onnx import (
    ConfigError,
    DataError,
    ModelQuantizer,
    QuantizationConfig,
    ResourceError,
    get_default_config,
)
from quark_onnx.cluster import opened_crew
from quark_onnx.cluster.connections import own_processes
from quark_onnx.cluster.dask_crew import DaskCrew
from quark_onnx.engine.observe import observe
from quark_onnx.graph import io

TEXT = """(float[N,3,6] x) => (float[N,5] y) <float[4,3,3] w, float[4] b, float[16,5] m> {
    [conv] h = Conv (x, w, b) [relu] a = Relu (h) [flat] f = Flatten (a) [gemm] y = Gemm (f, m) }"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "helpers"))
        with own_processes(2) as client:
            yield client


@pytest.fixture
def crew(client: Client) -> DaskCrew:
    return DaskCrew(client)


def test_jobs_come_in_order_from_processes_that_get_ready_once(crew: DaskCrew, tmp_path: Path) -> None:
    jobs = [("slow" if i % 3 else "quick", i) for i in range(20)]
    with crew.ready(partial(working, tmp_path)) as each:
        first, second = (list(each(jobs, *common)) for common in ((), (100, 1000)))
    assert [number for number, _ in first] == [*range(20)]
    assert [number for number, _ in second] == [1100 + i for i in range(20)]
    processes = {process for _, process in (*first, *second)}
    assert len(processes) == 2
    assert {int(file.name) for file in tmp_path.iterdir()} == processes


def test_what_a_lost_process_was_at_another_does(crew: DaskCrew, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.mkdir()
    jobs = [("slow", 0), ("slow", 1), (str(tmp_path / "lost"), 2), *(("slow", i) for i in range(3, 9))]
    with crew.ready(partial(working, ready)) as each:
        found = list(each(jobs, 10))
    assert (tmp_path / "lost").exists()
    assert [number for number, _ in found] == [10 + i for i in range(9)]


def test_what_a_job_raises_is_raised_here(crew: DaskCrew, tmp_path: Path) -> None:
    with crew.ready(partial(working, tmp_path)) as each:
        with pytest.raises(ValueError, match="job 1"):
            list(each([("quick", 0), ("fail", 1), ("quick", 2)]))
        assert [number for number, _ in each([("quick", 5)])] == [5]  # and the crew goes on


def test_a_job_that_no_process_survives_is_told(
    client: Client, crew: DaskCrew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    with (
        crew.ready(partial(working, tmp_path)) as each,
        pytest.raises(ResourceError, match="several workers were lost at the same piece of work"),
    ):
        list(each([(str(tmp_path / "lost"), 0)]))


def test_statistics_are_those_of_one_process(crew: DaskCrew) -> None:
    model = graph(TEXT)
    data = feeds(model, count=30)
    alone, shared = (observe(model, data, ["h", "y"], lambda done: None, crew=one) for one in (None, crew))
    for name, one in alone.items():
        assert (one.lo, one.hi) == (shared[name].lo, shared[name].hi)
        np.testing.assert_array_equal(one.bins.counts, shared[name].bins.counts)
    wrong = [{"x": np.zeros((1, 4, 6), np.float32)}]
    with pytest.raises(DataError, match="the model fails on the input x"):
        observe(model, wrong, ["h"], lambda done: None, crew=crew)


def test_the_model_is_the_same_with_an_existing_cluster(client: Client) -> None:
    model, found = io.to_proto(graph(TEXT)), []
    data = feeds(graph(TEXT), count=20)
    for address in (None, client.scheduler.address):
        result = ModelQuantizer(QuantizationConfig(include_cle=True), scheduler=address).quantize_model(
            model, calibration_data_reader=data
        )
        found.append(result.model.SerializeToString())
    assert found[0] == found[1]


def test_a_training_goes_on_without_a_lost_process(client: Client) -> None:
    """Its shards are computed again, and the plan is that of one process."""
    model, data = io.to_proto(graph(TEXT)), feeds(graph(TEXT), count=60)
    config = replace(get_default_config("S4S4_AAWS"), extra_options={"QAT": {"epochs": 2, "batch_size": 8, "shard": 2}})
    processes, lost = [*client.run(os.getpid).values()], list[int]()

    def tell(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("train") and done == 4 and not lost:
            lost.append(processes[0])
            os.kill(processes[0], signal.SIGKILL)

    found = []
    for address, progress in ((None, None), (client.scheduler.address, tell)):
        quantizer = ModelQuantizer(config, progress, scheduler=address)
        found.append(quantizer.quantize_model(model, calibration_data_reader=data))
    assert lost
    alone, others = found
    assert alone.report.trained is not None
    assert alone.report.trained.curve == others.report.trained.curve
    assert alone.model.SerializeToString() == others.model.SerializeToString()


@pytest.mark.parametrize(
    ("workers", "scheduler", "message"),
    [
        (0, None, "0 workers share no work; give a positive number"),
        (2, "tcp://127.0.0.1:1", "leave out either scheduler or workers"),
        (None, "nowhere", "no scheduler answers at 'nowhere'"),
    ],
)
def test_refused(workers: int | None, scheduler: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message), opened_crew(workers, scheduler):
        pass


def test_without_workers_there_is_no_crew_and_no_dask() -> None:
    code = "import sys; from quark_onnx.cluster import opened_crew\n"
    code += "with opened_crew(None, None) as crew: print(crew, 'distributed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "False"]


def test_workers_that_do_not_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quark_onnx.cluster.connections.START", 0.1)
    with pytest.raises(ResourceError, match="1 workers have not started within"), own_processes(1):
        pass
