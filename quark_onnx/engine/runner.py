"""The one door to onnxruntime: sessions on models in memory, feeds in, chosen tensors out."""

from __future__ import annotations

import copy
import re
import tempfile
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quark_onnx.core.errors import DataError, ModelError, reason
from quark_onnx.core.number_formats import Format
from quark_onnx.core.resource_faults import shortage
from quark_onnx.core.threads import allowed_threads
from quark_onnx.engine.calibration_data import Feed, InputSpec
from quark_onnx.engine.load_advice import advice
from quark_onnx.graph import Model, io, view
from quark_onnx.graph.custom_ops import carry, libraries
from quark_onnx.graph.opset import quantizer_pair

Arrays = list[NDArray[Any]]

VERSION = str(ort.__version__)
"""Of onnxruntime."""

FIRST_QUANTIZERS = 10
"""The operator set that brought QuantizeLinear; each onnxruntime has it."""

FLOAT = "to run it here, leave the operator float (nodes_to_exclude, with its neighbours), or turn optimizations off"
"""What to do about a quantized model that onnxruntime does not run."""

MANY = 3000
"""Nodes above which onnxruntime is not asked for its best layout of tensors: the time that it takes to find it grows
with their square, 3 s for 10,000. Fused layers and integer kernels are the same."""


class Runner:
    """A model ready to run.

    Args:
        model: runs as it is; it is not kept.
        outputs: names of tensors to return, default the graph outputs.
        optimized: the graph optimizations of onnxruntime (see `MANY`), or none (the arithmetic exactly as written).
        threads: of one run; 0: as many as this process may use, or what onnxruntime thinks best.
        fuse: run quantized layers on integer kernels; False keeps the float arithmetic of the simulation.
        keep: write onnxruntime's optimized graph, that for x64, to this path.
        profile: write a trace of all runs to a file whose path begins like this, which `session.end_profiling` tells.
        lean: memory is given back while it runs, and not planned for the run as a whole: half the peak of a training
            step, at the same speed.
        pooled: memory is that of a pool of all such sessions.
        trims: after each run what is free in the pool goes back to the system.
        new_data: no float model has run on the data yet, so that they may be at fault also where this one is quantized.

    Raises:
        ModelError, ResourceError: onnxruntime cannot load the model; the message holds its first line.
    """

    def __init__(
        self,
        model: Model,
        outputs: Sequence[str] | None = None,
        *,
        optimized: bool = True,
        threads: int = 0,
        fuse: bool = True,
        keep: Path | None = None,
        profile: Path | None = None,
        lean: bool = False,
        pooled: bool = False,
        trims: bool = False,
        new_data: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.enable_mem_pattern = not lean
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or allowed_threads()
        options.graph_optimization_level = _level(optimized, few=lean or len(model.graph) > MANY)
        if pooled:
            _make_pool()
            options.add_session_config_entry("session.use_env_allocators", "1")
        self._run_options = _trimming() if trims else None
        if not fuse:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if keep is not None:
            options.add_session_config_entry("session.qdqisint8allowed", "0")  # as on x64, wherever this runs
            options.optimized_model_filepath = str(keep)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        quantized = any(view.is_op(node, "QuantizeLinear", "DequantizeLinear") for node in model.graph.all_nodes())
        self._blames_data = new_data or not quantized
        try:
            for library in libraries(model):
                options.register_custom_ops_library(library)
            source = io.runnable(model, whole=keep is not None)
            if source.folder is not None:
                folder = str(source.folder)
                options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
                options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "w.data")
            if io.is_heavy(model):
                options.add_session_config_entry("session.disable_prepacking", "1")  # it copies all weights
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in source.weights.values()]
            options.add_external_initializers(list(source.weights), values)
            self._session = ort.InferenceSession(source.model, options, providers=["CPUExecutionProvider"])
            self._session.weights = source.weights  # onnxruntime reads them there as long as the session lives
        except Exception as error:  # onnxruntime raises a dozen types of its own, none with a common base
            reason = _reason(error)
            if (lack := shortage(error, keep, reason)) is not None:
                raise lack from error
            way = advice(reason, float64=view.computes_in(model, "float64"))
            way = f"{way}; {FLOAT}" if quantized else way
            text = f"onnxruntime {VERSION} cannot load the model: {reason}; {way}"
            raise ModelError(text, _node(error)) from error
        self._has_run = False
        self.inputs = [i.name for i in self._session.get_inputs()]
        self._known = {*self.inputs, *(i.name for i in self._session.get_overridable_initializers())}
        self.outputs = view.output_names(model) if outputs is None else list(outputs)

    @property
    def session(self) -> ort.InferenceSession:
        """onnxruntime's own session."""
        return self._session

    def returning(self, outputs: Sequence[str]) -> Runner:
        """The same session, asked for other outputs of the model."""
        other = copy.copy(self)
        other.outputs = list(outputs)
        return other

    def __call__(self, feed: Feed) -> Arrays:
        """The outputs for one feed; what it holds besides the inputs, a mask of the user's, is passed over.

        Raises:
            DataError, ResourceError: onnxruntime fails while running; the message names the shapes it was given.
            ModelError: it has never run, and fails on zeros, too; or it is quantized, and the float one may run.
        """
        given = {name: array for name, array in feed.items() if name in self._known}
        try:
            found = list(self._session.run(self.outputs, given, self._run_options))
        except Exception as error:
            reason = _reason(error)
            if (lack := shortage(error, said=reason)) is not None:
                raise lack from error
            if not self._blames_data:
                text = f"onnxruntime {VERSION} fails on the quantized model: {reason}; {FLOAT}"
                raise ModelError(text, _node(error)) from error
            shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in given.items())
            told = f"the model fails on the input {shapes}"
            if self._has_run or _IN_A_NODE not in str(error) or self._runs_on_zeros(given):
                raise DataError(f"{told}: {reason}; use inputs that it can run on") from error
            raise ModelError(
                f"{told}, and on any other that was tried: {reason}; an attribute or a weight of that node is wrong: "
                "mend the model, or use inputs of other shapes if it takes these alone"
            ) from error
        self._has_run = True
        return found

    def _runs_on_zeros(self, feed: Feed) -> bool:
        """Whether there is an input that the model runs on: zeros of the shapes of a feed, or of open dimensions 1."""
        declared = {value.name: value.shape for value in self._session.get_inputs()}
        least = {name: [dim if isinstance(dim, int) else 1 for dim in dims] for name, dims in declared.items()}
        for shapes in ({name: array.shape for name, array in feed.items()}, least):
            zeros = {name: np.zeros(shapes[name], array.dtype) for name, array in feed.items()}
            texts = {name: np.full(shapes[name], "", object) for name, array in feed.items() if array.dtype.hasobject}
            try:
                self._session.run(self.outputs, zeros | texts)
                return True
            except Exception:  # onnxruntime's, as above
                continue
        return False

    def stream(self, feeds: Iterable[Feed]) -> Iterator[tuple[Feed, Arrays]]:
        """Outputs feed by feed; the next feed runs while the caller works on the last one."""
        with ThreadPoolExecutor(1) as executor:
            waiting = None
            for feed in feeds:
                following = (feed, executor.submit(self, feed))
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = following
            if waiting is not None:
                yield waiting[0], waiting[1].result()


_IN_A_NODE = "while running"
"""In messages of nodes that fail; others are about names and types of inputs."""

_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_FUNCTION = r"[^(]*\((?:[^()]|\([^()]*\))*\)(?:::<[^>]*>| const)*(?: \[with [^]]*\])?"
_PLACE = re.compile(rf"\S+\.(?:cc|cpp|h|hpp):\d+ {_FUNCTION} ")


_NODE = re.compile(r"""Name:'([^']*)'|node (?:with )?name '([^']*)'|Node \(([^)]*)\) Op|In Node, \("([^"]*)\"""")


def _node(error: Exception) -> str:
    """The name of the node that the message is about, the innermost of bodies; empty where it names none."""
    *_, found = (None, *_NODE.finditer(str(error)))
    return next(filter(None, found.groups()), "") if found else ""


def _reason(error: Exception) -> str:
    """The first line, without onnxruntime's status code and without the C++ file and function it comes from."""
    return _PLACE.sub("", _STATUS.sub("", reason(error, 1)))[:400].strip(". ")


def _level(optimized: bool, *, few: bool) -> ort.GraphOptimizationLevel:
    """Which optimizations; few: not the best layout of tensors."""
    if not optimized:
        return ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED if few else ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def _trimming() -> ort.RunOptions:
    """After the run what is free goes back to the system."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


@lru_cache
def _make_pool() -> None:
    """Memory that sessions share, once in a process."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, 0, -1, -1))


@lru_cache
def _implements_quantizers(opset: int) -> bool:
    try:
        Runner(quantizer_pair(opset), optimized=False)
    except ModelError:
        return False
    return True


def newest_opset(at_most: int) -> int:
    """The newest operator set, up to `at_most`, whose QuantizeLinear and DequantizeLinear this onnxruntime implements.

    onnxruntime itself is asked: it loads models of later operator sets, too, and runs their other operators.
    """
    if _implements_quantizers(at_most):
        return at_most
    known = range(FIRST_QUANTIZERS, at_most)
    return FIRST_QUANTIZERS + bisect(known, False, key=lambda opset: not _implements_quantizers(opset)) - 1


@lru_cache
def rounds_float16() -> bool:
    """Whether QuantizeLinear rounds float16 numbers to the nearest: up to version 1.29 onnxruntime cuts them off."""
    feed: Feed = {"x": np.array([0.75], np.float16), "s": np.array(1, np.float16), "z": np.array(0, np.int8)}
    (found,) = Runner(quantizer_pair(Format(scale="half").opset, "float16"), optimized=False, threads=1)(feed)
    return bool(found[0] == 1)


@contextmanager
def executed_model(model: Model) -> Iterator[Model]:
    """What onnxruntime makes of the model, and executes. Its weights may be in a file that goes with the context."""
    with tempfile.TemporaryDirectory(prefix="quark_onnx-") as folder:
        path = Path(folder) / "optimized.onnx"
        Runner(model, keep=path)
        executed = io.load_executed(path)
        carry(model.graph, executed.graph)
        try:
            yield executed
        finally:
            io.close(executed)


def run_file(path: Path, feed: Feed, threads: int = 0) -> None:
    """Load a model file and run it once: nothing else, so that what it costs can be seen."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feed)


def input_specs(model: Model) -> list[InputSpec]:
    """What each input of the model accepts that has to be fed: inputs with a default (an initializer) are left out.

    Raises:
        ModelError: an input is not a tensor of a known type.
    """
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        dtype = view.numpy_dtype(value)
        if dtype is None:
            raise ModelError(f"input {value.name!r} is not a tensor of a known element type; only tensors can be fed")
        specs.append(InputSpec(value.name or "", np.dtype(dtype), view.shape(value)))
    return specs


def fit(feed: Feed, model: Model) -> Feed:
    """The feed with float arrays in the types of the model's inputs: float16 as float32, or the other way round."""
    wanted = {value.name: view.numpy_dtype(value) for value in model.graph.inputs}
    return {name: _as_float(array, wanted.get(name)) for name, array in feed.items()}


def _as_float(array: NDArray[Any], wanted: np.dtype[Any] | None) -> NDArray[Any]:
    if wanted is None or array.dtype == wanted or not array.dtype.kind == wanted.kind == "f":
        return array
    return array.astype(wanted)
