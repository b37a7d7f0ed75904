"""Times of OpenVINO's kernels count for the nodes that they serve; figures depend on the machine and are not tested."""

from __future__ import annotations

import pytest
from openvino_installed import needs_openvino
from quantized_models import feeds, graph, quantized

from quark_onnx.core.errors import DataError
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.kernel_times import REST
from quark_onnx.engine.runtimes.known import own_runtime
from quark_onnx.engine.runtimes.openvino.names import labelled
from quark_onnx.engine.runtimes.openvino.times import owners_of_kernels
from quark_onnx.engine.runtimes.runtime import Executed, Runtime

NET = """(float[1,16,8,8] x) => (float[A,B,C,D] y) <float[16,16,3,3] w, float[16,16,3,3] v, float[16] b> {
    [a] h = Conv (x, w, b) [r] g = Relu (h) [c] f = Conv (g, v) [e] y = Erf (f) }"""


def openvino() -> Runtime:
    found = own_runtime(TARGETS["openvino"])
    assert found is not None
    return found


@needs_openvino
@pytest.mark.parametrize("on_integers", [True, False])
def test_layers_take_the_time_of_what_they_alone_need(on_integers: bool) -> None:
    """What is taken in has none, quantizers and changes of layout count for a layer, and nothing is left over."""
    made = quantized(graph(NET), target="openvino")
    found = openvino().kernel_times(made.quantized if on_integers else made.model, feeds(made.model, 2))
    assert found.keys() - {"e"} == {"a", "c"} and min(found.values()) > 0


@needs_openvino
def test_there_must_be_a_sample() -> None:
    with pytest.raises(DataError, match="there is no sample to run it on"):
        openvino().kernel_times(graph(NET), [])


def kernel(*nodes: str, op: str = "Convolution") -> Executed:
    return Executed(nodes, op, "jit_f32", "f32", ("f32",))


def test_kernels_count_for_whom_they_serve() -> None:
    """By name; by the layer that lost its name; by who reads them; and what nobody reads for nobody."""
    model = graph(NET)
    executed = {
        "x_abcd_acdb_@0@": kernel(op="Reorder"),
        "MVN_7": kernel(op="MVN"),
        "@1@": kernel("r"),
        "@2@": kernel("c"),
        "@3@": kernel("e", op="Math"),
        "Range_1": kernel(op="Range"),
    }
    readers = {"x_abcd_acdb_@0@": ["@1@"], "MVN_7": ["@3@"], "@1@": ["@2@"]}
    found = owners_of_kernels(model, executed, readers, labelled(model))
    assert found == {"x_abcd_acdb_@0@": "a", "MVN_7": "e", "@1@": "a", "@2@": "c", "@3@": "e"}
    assert REST not in found.values()
