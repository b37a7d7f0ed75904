"""OpenVINO's CPU plugin as a runtime, where the package is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import DataError, ModelError, reason
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.executed_work import work_by_node
from quark_onnx.engine.ledger_rows import Inside, Row
from quark_onnx.engine.runner import Arrays
from quark_onnx.engine.runtimes.openvino.certificate import certificate
from quark_onnx.engine.runtimes.openvino.ledger import openvino_rows
from quark_onnx.engine.runtimes.openvino.names import Labelled, labelled
from quark_onnx.engine.runtimes.openvino.reasons import multiplies_integers
from quark_onnx.engine.runtimes.openvino.session import (
    LEAVE,
    Property,
    compiled,
    compiled_model,
    core,
    failure,
    fed,
    fed_names,
    fits,
    maker_names,
    version,
)
from quark_onnx.engine.runtimes.openvino.times import Counted, Readers, times_by_node
from quark_onnx.engine.runtimes.openvino.without_vnni import without_vnni
from quark_onnx.engine.runtimes.runtime import Executed, Missing, Runtime
from quark_onnx.engine.saturation_certificate import Certificate, is_quantized
from quark_onnx.graph import Model, io
from quark_onnx.graph.passes import name_nodes
from quark_onnx.graph.view import is_op, output_names

TITLE = "OpenVINO"

NO_WORK = ("Const", "Input", "Output")
"""What the graph that is executed holds besides work."""

OTHER = "use inputs that it can run on"

INSTALL = "pip install 'quark-onnx[openvino]'"


def runtime() -> Runtime | Missing:
    """It, where the package can be imported."""
    try:
        core()
    except Exception as error:  # not there, or not for this machine, which its libraries tell in types of their own
        return Missing("openvino", TITLE, f"{reason(error, 1)}; {INSTALL}")
    return Runtime(
        "openvino", TITLE, version(), Loaded, executed_nodes, ledger, kernel_times, certify, without_vnni, run_file
    )


class Loaded:
    """A model ready to run; see `runtime.Load`."""

    def __init__(
        self,
        model: Model,
        outputs: Sequence[str] | None = None,
        *,
        threads: int = 0,
        properties: Mapping[str, Property] | None = None,
    ) -> None:
        names = output_names(model) if outputs is None else list(outputs)
        tapped = io.with_outputs(model, names)
        given = [value.name for value in tapped.graph.outputs]
        self.compiled = compiled_model(tapped, threads, properties)
        self._request = self.compiled.create_infer_request()
        self._wanted = [given.index(name) for name in names]  # their order stays, while names of equal ones are merged
        self._inputs = fed_names(tapped)
        self._quantized = is_quantized(model)
        self._makers = maker_names(model)

    def __call__(self, feed: Feed) -> Arrays:
        """The outputs for one feed; what it holds besides the inputs is passed over, and inputs that nothing reads.

        Raises:
            DataError, ResourceError, ModelError: see `runtime.Load`.
        """
        given = dict(enumerate(fed(feed, self._inputs)))
        for at, array in given.items():
            if not fits(array, self._request.model_inputs[at]):  # which it may not survive
                taken = self._request.model_inputs[at].partial_shape
                told = f"input {self._inputs[at]!r} has shape {tuple(array.shape)}, and the model takes {taken}"
                raise DataError(f"{told}; {OTHER}")
        try:
            found = self._request.infer(given)  # both are copied
            return [found[at] for at in self._wanted]
        except Exception as error:  # its own are RuntimeErrors, those of its bindings are not
            if self._quantized:
                told = f"OpenVINO {version()} fails on the quantized model"
                raise failure(error, self._makers, told, LEAVE) from error
            shapes = ", ".join(f"{self._inputs[at]} {tuple(array.shape)}" for at, array in given.items())
            found = failure(error, self._makers, f"OpenVINO {version()} fails on the input {shapes}", OTHER)
            raise (DataError(str(found)) if isinstance(found, ModelError) else found) from error

    @property
    def counters(self) -> dict[str, float]:
        """Microseconds that each kernel takes in the mean of the runs, where the property PERF_COUNT is set.

        Each has half of one more: they are whole ones, rounded down.
        """
        ran = [one for one in self._request.get_profiling_info() if str(one.status).endswith("EXECUTED")]
        return {one.node_name: one.cpu_time.total_seconds() * 1e6 + 0.5 for one in ran if one.node_type not in NO_WORK}


def executed_nodes(model: Model) -> list[Executed]:
    """The nodes of the graph that the plugin executes, those that only hold weights or are no work left out."""
    labels = labelled(model)
    try:
        compiled = compiled_model(labels.model)
    except ModelError:
        compiled_model(model)  # for its message, which names nodes
        raise
    return [*_executed_by_name(compiled, labels).values()]


def _executed_by_name(compiled: Any, labels: Labelled) -> dict[str, Executed]:
    """By OpenVINO's own name."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    told = {node.get_friendly_name(): node.get_rt_info() for node in nodes}
    texts = {name: {key: value.astype(str) for key, value in info.items()} for name, info in told.items()}
    return {name: _executed(text, labels) for name, text in texts.items() if text["layerType"] not in NO_WORK}


def _readers(compiled: Any) -> Readers:
    nodes = compiled.get_runtime_model().get_ordered_ops()
    uses = {
        node.get_friendly_name(): [use for port in node.outputs() for use in port.get_target_inputs()] for node in nodes
    }
    return {name: [use.get_node().get_friendly_name() for use in those] for name, those in uses.items()}


def kernel_times(model: Model, feeds: Iterable[Feed], *, threads: int = 1) -> dict[str, float]:
    """See `runtimes.openvino.times`."""

    def compiled(labels: Labelled) -> tuple[Mapping[str, Executed], Readers, Counted]:
        loaded = Loaded(labels.model, threads=threads, properties={"PERF_COUNT": True})

        def run(feed: Feed) -> Mapping[str, float]:
            loaded(feed)
            return loaded.counters

        return _executed_by_name(loaded.compiled, labels), _readers(loaded.compiled), run

    return times_by_node(model, feeds, compiled)


def _executed(told: Mapping[str, str], labels: Labelled) -> Executed:
    nodes, outputs = labels.named_in(told["originalLayersNames"]), tuple(told["outputPrecisions"].split(","))
    return Executed(nodes, told["layerType"], told["primitiveType"], told["runtimePrecision"], outputs)


def ledger(parts: Sequence[Inside], quantized: Model, target: Target) -> list[Row]:
    """See `runtimes.openvino.ledger`."""
    return openvino_rows(parts, quantized, executed_nodes(quantized))


def certify(model: Model) -> dict[str, Certificate]:
    """A certificate for each product on integers; those without a name are called by operator and output.

    See `runtimes.openvino.certificate`.
    """
    named = io.copy(model)
    name_nodes(named)
    work = work_by_node(named, executed_nodes(named))
    layers = ((node, work.get(node.name or "")) for node in named.graph if is_op(node, *LAYERS))
    return {n.name or "": certificate(n) for n, one in layers if one is not None and multiplies_integers(n, one)}


def run_file(path: Path, feed: Feed, threads: int = 0) -> None:
    """Load a model file and run it once: nothing else, so that what it costs can be seen."""
    found = compiled(path, threads)
    names = {name for port in found.inputs for name in port.get_names()}
    found({name: array for name, array in feed.items() if name in names})
