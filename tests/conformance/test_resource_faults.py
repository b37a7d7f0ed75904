"""Memory, disk or open files that have run out are told as such, and nothing half-written stays."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import fails
from text_models import normal, text_model

from quark_onnx import (
    ConfigError,
    DataError,
    ModelError,
    ModelQuantizer,
    QuarkError,
    ResourceError,
    get_default_config,
)
from quark_onnx.cli import EXIT_CODES
from quark_onnx.core.atomic_files import new_file, new_folder
from quark_onnx.core.resource_faults import RESOURCES, shortage, told_as_such
from quark_onnx.engine.activation_store import Store
from quark_onnx.engine.calibration_data import open_data
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.engine.runner import InputSpec, Runner, executed_model
from quark_onnx.graph import io, large_weights, passes

resource = pytest.importorskip("resource")

MODEL = text_model(
    "g (float[N, 3, 8, 8] x) => (float[N, 32, 6, 6] y) { c = Conv (x, w) y = Relu (c) }", w=normal(32, 3, 3, 3)
)
FEEDS = [{"x": normal(1, 3, 8, 8, seed=seed)} for seed in range(3)]
SPEC = [InputSpec("x", np.dtype("float32"), (None, 3, 8, 8))]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class OnnxruntimeError(Exception):
    """Its errors have no common base."""


TOLD: list[tuple[str | None, Exception]] = [
    ("memory", MemoryError()),
    ("memory", OSError(errno.ENOMEM, "Cannot allocate memory")),
    ("memory", OnnxruntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad_alloc.cc:3 std::bad_alloc")),
    ("memory", RuntimeError("/x/bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 4")),
    ("memory", caused(ModelError("the model cannot be loaded"), OnnxruntimeError("std::bad_alloc"))),
    (None, caused(ModelError("model.onnx is not valid: it asks for more memory than there is"), MemoryError())),
    ("threads", RuntimeError("can't start new thread")),
    ("disk", OSError(errno.ENOSPC, "No space left on device", "p.onnx")),
    ("disk", OnnxruntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Protobuf serialization failed.")),
    ("disk", caused(ConfigError("cannot write x"), caused(ValueError("?"), OSError(errno.EFBIG, "File too large")))),
    ("files", OSError(errno.EMFILE, "Too many open files", "x.npy")),
    ("files", caused(DataError("cannot read x.npy"), OSError(errno.ENFILE, "Too many open files in system"))),
    ("temporary files", FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")),
    (None, FileNotFoundError(errno.ENOENT, "No such file or directory", "Too many open files.npy")),
    (None, PermissionError(errno.EACCES, "Permission denied", "bad_alloc")),
    (None, ModelError("node 'std::bad_alloc' has no inputs")),
    (None, ValueError("the memory of an elephant")),
]


@pytest.mark.parametrize(("name", "error"), TOLD)
def test_what_has_run_out_is_recognized(name: str | None, error: Exception) -> None:
    """By number or by words, also as the cause of an error that blames something else; names of users' are no words."""
    found = shortage(error)
    assert (found and found.resource) == name
    if found is not None and name is not None:
        assert RESOURCES[name].lack in str(found)
        assert RESOURCES[name].way_out in str(found)
        with pytest.raises(ResourceError), told_as_such():
            raise error
    else:
        with pytest.raises(type(error)), told_as_such():
            raise error


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; nothing may be left there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    gc.collect()  # a file goes with the last that may read it, and an error holds those that were at work
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def limit(which: int, value: int) -> Iterator[None]:
    """A real limit of this process."""
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


def large() -> Any:
    """A model with a weight of 256 kB."""
    text = "g (float[1, 256] x) => (float[1, 256] y) { y = MatMul (x, w) }"
    return io.load(text_model(text, w=normal(256, 256)))


def optimized() -> None:
    with executed_model(large()):
        pass


def plan_written(folder: Path) -> None:
    with new_folder(folder / "plan", "plan.json") as inside:
        (inside / "arrays.npz").write_bytes(bytes(1 << 18))


def table_written(folder: Path) -> None:
    with new_file(folder / "table.csv") as inside:
        inside.write_bytes(bytes(1 << 18))


WRITERS: dict[str, Callable[[Path], object]] = {
    "the model": lambda folder: io.save(large(), folder / "m.onnx", source=large()),
    "the model's weights": lambda folder: io.save(large(), folder / "m.onnx", source=large(), external=True),
    "a plan": plan_written,
    "a table": table_written,
    "feeds": lambda _: keep([{"x": normal(256, 256)}], limit=0),
    "activations": lambda _: Store(0).put("x", [normal(256, 256)]),
    "weights of a large model": lambda _: large_weights.settle(large()),
    "what onnxruntime executes": lambda _: optimized(),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_told_as_such(what: str, folder: Path) -> None:
    """Files may not become larger than 64 kB: all that is written is 256."""
    with limit(resource.RLIMIT_FSIZE, 1 << 16), pytest.raises(ResourceError, match="disk is full"), told_as_such():
        WRITERS[what](folder)


@pytest.mark.parametrize("file", ["npy", "npz"])
def test_too_many_open_files_are_not_the_fault_of_the_samples(file: str, tmp_path: Path) -> None:
    (arrays if file.endswith("npy") else archives)(tmp_path, 1)
    data = open_data(None, SPEC, path=tmp_path)
    with contextlib.ExitStack() as held, limit(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/dev/fd"))) + 2):
        with contextlib.suppress(OSError):
            while True:
                held.enter_context(open(os.devnull, "rb"))
        with pytest.raises(ResourceError, match="too many files are open"), told_as_such():
            list(data)


def test_a_reader_that_runs_out_of_memory_is_no_bad_sample(tmp_path: Path) -> None:
    def reader() -> Iterator[Any]:
        yield FEEDS[0]
        raise MemoryError("Unable to allocate 4.00 GiB for an array")

    with pytest.raises(ResourceError, match=r"memory is not enough \(Unable to allocate 4.00 GiB"):
        ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(MODEL, tmp_path / "p.onnx", reader)
    assert list(tmp_path.iterdir()) == []


class Failing:
    """A session that fails."""

    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, outputs: object, feed: object, options: object) -> list[Any]:
        raise OnnxruntimeError(self.text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc", ResourceError),
        ("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer", ResourceError),
        ("[ONNXRuntimeError] : 1 : FAIL : Can't reduce on dim with value of 0", DataError),
    ],
)
def test_a_run_without_memory_is_not_the_fault_of_the_data(text: str, kind: type[QuarkError]) -> None:
    runner = Runner(io.load(MODEL))
    runner._session = Failing(text)
    with pytest.raises(QuarkError) as caught:
        runner(FEEDS[0])
    assert caught.type is kind


def test_what_is_done_without_is_not_passed_over_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose shapes cannot be inferred may still run; where memory is short, layers must not get lost."""

    def infer(*_: object, **__: object) -> None:
        raise failing[0]

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", infer)
    failing: list[Exception] = [RuntimeError("Inferred shape and existing shape differ")]
    passes.infer_shapes(io.load(MODEL))
    failing[0] = MemoryError("std::bad_alloc")
    with pytest.raises(ResourceError):
        passes.infer_shapes(io.load(MODEL))


def test_the_shell_sees_a_code_of_its_own(tmp_path: Path) -> None:
    """And a line that names the file; the folder of the output is as it was."""
    onnx.save(MODEL, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", FEEDS[0]["x"])
    before = sorted(tmp_path.iterdir())
    with limit(resource.RLIMIT_FSIZE, 1 << 11):
        said = fails(6, "quantize", tmp_path / "m.onnx", "-o", tmp_path / "p.onnx", "--data", tmp_path / "x.npy")
    assert "the disk is full" in said
    assert sorted(tmp_path.iterdir()) == before
    assert EXIT_CODES[ResourceError] == 6


# Open files


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def arrays(folder: Path, count: int) -> None:
    for index in range(count):
        np.save(folder / f"{index:03}.npy", normal(1, 3, 8, 8, seed=index))


def archives(folder: Path, count: int) -> None:
    for index in range(count):
        np.savez(folder / f"{index:03}.npz", x=normal(1, 3, 8, 8, seed=index))


def beside_each_other(folder: Path, count: int) -> None:
    (folder / "x").mkdir()
    arrays(folder / "x", count)


def images(folder: Path, count: int) -> None:
    image = pytest.importorskip("PIL.Image")
    for index in range(count):
        image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(folder / f"{index:03}.png")


def one_stack(folder: Path, count: int) -> None:
    np.save(folder / "all.npy", normal(count, 3, 8, 8))


@pytest.mark.parametrize("write", [arrays, archives, beside_each_other, images, one_stack])
def test_kept_samples_hold_no_file_open_each(write: Callable[[Path, int], None], tmp_path: Path) -> None:
    write(tmp_path, 40)
    path = tmp_path / "all.npy" if write is one_stack else tmp_path
    before = descriptors()
    feeds = keep(open_data(None, SPEC, path=path))
    assert len(feeds) == 40
    assert descriptors() <= before + (write is one_stack)
