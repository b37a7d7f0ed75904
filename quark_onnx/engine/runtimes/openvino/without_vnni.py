"""A model as OpenVINO runs it on x64 without VNNI, on any x64: in a process whose oneDNN is told of no more.

`python -m quark_onnx.engine.runtimes.openvino.without_vnni MODEL` compiles it and says with which primitives; then,
for each line that it reads, the name of a file of inputs, it writes the outputs into that file, and says so.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from quark_onnx.child_environment import child_environment
from quark_onnx.core.errors import ModelError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Arrays
from quark_onnx.engine.runtimes.openvino.session import compiled, fed, fed_names, said_by
from quark_onnx.engine.runtimes.runtime import Run
from quark_onnx.graph import Model, io

LIMITS = ("AVX2", "AVX512_CORE")
"""What oneDNN may use, by its variable ONEDNN_MAX_CPU_ISA, which it reads before it makes its first kernel. Some models
end the process with the first: the second adds in 16 bits, too."""

BEYOND = ("avx512", "avx10", "amx", "vnni")
"""Parts of names of primitives, of which the first limit leaves none …"""

LIMITED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "Pooling", "Eltwise", "Subgraph")
"""… among nodes of these types; some that compute in float ask the processor themselves."""

X64 = ("x86_64", "amd64", "x64")


@contextmanager
def without_vnni(model: Model, outputs: Sequence[str]) -> Iterator[Run]:
    """A function as `Runtime.load` makes one.

    Raises:
        ModelError: this processor is another one, or the limit has no effect, or OpenVINO fails.
    """
    if platform.machine().lower() not in X64:
        raise ModelError(f"a processor of type {platform.machine()} cannot run it as x64 does; measure it on x64")
    tapped = io.with_outputs(model, list(outputs))
    given = [value.name for value in tapped.graph.outputs]
    with tempfile.TemporaryDirectory(prefix="quark_onnx-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        path = Path(folder) / "model.onnx"
        io.save(tapped, path, source=model, external=io.is_heavy(tapped))
        yield _Limited(stack, path, fed_names(tapped), [given.index(name) for name in outputs])


class _Ended(Exception):
    """The process has ended by itself."""


class _Limited:
    """Runs the model in a process with the first of the limits that it survives."""

    def __init__(self, stack: ExitStack, path: Path, inputs: Sequence[str], wanted: Sequence[int]) -> None:
        self._stack, self._path, self._inputs, self._wanted = stack, path, inputs, wanted
        self._left = list(LIMITS)
        self._child = self._started()

    def __call__(self, feed: Feed) -> Arrays:
        try:
            return self._found(feed)
        except _Ended:
            self._child = self._started()
            return self(feed)

    def _started(self) -> subprocess.Popen[str]:
        """A process in which the model is compiled."""
        if not self._left:
            raise ModelError(f"OpenVINO ends its process where it is limited to {' or to '.join(LIMITS)}")
        limit = self._left.pop(0)
        child = self._stack.enter_context(_process(self._path, limit))
        try:
            primitives = _answer(child)["primitives"]
        except _Ended:
            return self._started()
        if limit == LIMITS[0] and (kept := [name for name in primitives if any(part in name for part in BEYOND)]):
            raise ModelError(f"OpenVINO does not heed ONEDNN_MAX_CPU_ISA here: it has compiled {kept[0]}")
        return child

    def _found(self, feed: Feed) -> Arrays:
        assert self._child.stdin is not None
        path = self._path.with_name("feed.npz")
        np.savez(path, *fed(feed, self._inputs))
        self._child.stdin.write(f"{path}\n")
        self._child.stdin.flush()
        _answer(self._child)
        with np.load(path) as stored:
            return [stored[f"arr_{at}"] for at in self._wanted]


@contextmanager
def _process(path: Path, limit: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(path)],
        cwd=path.parent,  # of which we know what is in it
        env=child_environment(ONEDNN_MAX_CPU_ISA=limit),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise _Ended
    answer: dict[str, Any] = json.loads(line)
    if "failed" in answer:
        raise ModelError(f"OpenVINO fails where it is limited: {answer['failed']}")
    return answer


def _main(model: str) -> None:
    try:
        loaded = compiled(Path(model))
        told = [node.get_rt_info() for node in loaded.get_runtime_model().get_ops()]
        _say(primitives=[one["primitiveType"].astype(str) for one in told if one["layerType"].astype(str) in LIMITED])
        for line in sys.stdin:
            path = line.removesuffix("\n")
            with np.load(path) as stored:
                found = loaded([stored[f"arr_{at}"] for at in range(len(stored.files))])
            np.savez(path, *(found[at] for at in range(len(loaded.outputs))))
            _say()
    except Exception as error:  # OpenVINO's, which the other process tells of
        _say(failed=said_by(error))


def _say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
