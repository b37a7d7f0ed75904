"""Each runtime: what it loads, runs, tells of its graph and times; and what is said where it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from openvino_installed import needs_openvino
from text_models import normal, text_model

from quark_onnx.core.errors import DataError, ModelError
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.runtimes.known import RUNTIMES, refuse, runtime_of
from quark_onnx.engine.runtimes.openvino import without_vnni as openvino_without_vnni
from quark_onnx.engine.runtimes.openvino.session import core
from quark_onnx.engine.runtimes.runtime import Executed, Missing, Runtime
from quark_onnx.graph import Model, io

X = normal(3, 4)
LAYER = """g (float[N, 16] x) => (float[N, 4] y) {
    q = QuantizeLinear (x, xs, xz)  d = DequantizeLinear (q, xs, xz)  v = DequantizeLinear (w, ws, wz)
    [product] p = MatMul (d, v) [act] y = Relu (p) }"""
TYPES = """g (float[N, 4] x, int64[N] i, bool[N] b, float[N] unread) =>
    (int64[N] n, bool[N] c, float e, float16[N, 4] h) {
    n = Neg (i)  c = Not (b)  e = ReduceSum <keepdims = 0> (x)  h = Cast <to = 10> (x) }"""


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return found(request.param)


def found(name: str) -> Runtime:
    one = RUNTIMES[name]()
    if isinstance(one, Missing):
        pytest.skip(one.reason)
    return one


def model(text: str, **constants: Any) -> Model:
    return io.load(text_model(text, **constants))


def layer(weight: np.ndarray, scale: float = 0.5) -> Model:
    """A product whose input has whole numbers in uint8, and whose weight is given in int8."""
    scales = {"xs": np.float32(1), "ws": np.float32(scale), "xz": np.uint8(0), "wz": np.int8(0)}
    return model(LAYER, w=weight, **scales)


def test_it_runs_a_model(runtime: Runtime) -> None:
    """Outputs in the order that is asked for, inner ones and equal ones, too; they are not overwritten."""
    it = model("g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) { a = Neg (x)  y = Relu (a)  z = Identity (y) }")
    runs = runtime.run(it, [{"x": X, "mask": X}, {"x": X[:1] * 2}], ["z", "a", "y"])
    for (z, a, y), x in zip(list(runs), (X, X[:1] * 2), strict=True):
        assert (a == -x).all() and (y == np.maximum(-x, 0)).all() and (z == y).all()
    ((y, _),) = runtime.run(it, [{"x": X.astype(np.float16)}])
    assert y.dtype == np.float32


def test_it_takes_and_gives_all_types(runtime: Runtime) -> None:
    feed = {"x": X, "i": np.array([1, 2, 2**30]), "b": np.array([True, False, True]), "unread": X[:, 0]}
    n, c, e, h = runtime.load(model(TYPES))(feed)
    assert n.tolist() == [-1, -2, -(2**30)] and c.tolist() == [False, True, False]
    assert e.shape == () and np.isclose(e, X.sum(), atol=1e-5) and h.dtype == np.float16


TEXTS = "g (string[N] t, float[N] x) => (string[N] s, float[N] y) { s = Identity (t)  y = Neg (x) }"


def test_texts_do_not_end_the_process() -> None:
    assert len(found("onnxruntime").load(model(TEXTS))({"t": np.array(["a"], object), "x": X[:1, 0]})) == 2
    with pytest.raises(ModelError, match=r"^'t' holds texts.*; cut the model"):
        found("openvino").load(model(TEXTS))


PASSED_ON = """g (float[N, 4] unread, float[N, 4] x, float[N, 4] q) => (float[N, 4] y) {
    s = SequenceConstruct (x, q)  at = Constant <value_int = 1> ()  v = SequenceAt (s, at)  y = Neg (v) }"""


def test_an_input_that_is_passed_on_keeps_its_name(runtime: Runtime) -> None:
    feed = {"q": X * 2, "x": X, "unread": X}
    try:
        (y,) = runtime.load(model(PASSED_ON))(feed)
    except ModelError as error:
        assert "Sequence" in str(error)
        pytest.skip("this OpenVINO knows no sequences")
    assert (y == -2 * X).all()
    with pytest.raises((DataError, ModelError), match=r"'?q'?"):
        runtime.load(model(PASSED_ON))({"x": X, "unread": X})


def test_an_input_with_a_value_need_not_be_fed(runtime: Runtime) -> None:
    it = model("g (float[4] k, float[N, 4] x) => (float[N, 4] y) { y = Add (x, k) }", k=np.ones(4, np.float32))
    (y,) = runtime.load(it)({"x": X})
    assert (y == X + 1).all()


def test_large_weights_are_read_from_files(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    it = model("g (float[N, 4] x) => (float[N, 400] y) { y = MatMul (x, w) }", w=np.ones((4, 400), np.float32))
    monkeypatch.setattr(io, "FILES_ABOVE", 1000)
    (y,) = runtime.load(it)({"x": np.ones((2, 4), np.float32)})
    assert (y == 4).all()


@pytest.mark.parametrize("feed", [{}, {"x": X[:, :3]}, {"x": X[0]}], ids=["missing", "shape", "rank"])
def test_a_sample_that_does_not_fit_is_told(runtime: Runtime, feed: Mapping[str, np.ndarray]) -> None:
    with pytest.raises(DataError):
        runtime.load(model("g (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }"))(dict(feed))


def test_a_model_that_it_cannot_load_is_told(runtime: Runtime) -> None:
    text = text_model("g (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }")
    text.graph.node[0].domain = "their.own"
    text.opset_import.add(domain="their.own", version=1)
    with pytest.raises(ModelError, match=r"cannot load the model: .*their\.own.*; .+"):
        runtime.load(io.load(text))


FUNCTION = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
g (float[N, 4] x) => (float[N, 4] y) { y = local.Twice (x) }
<domain: "local", opset_import: ["": 17]> Twice (a) => (b) { b = Add (a, a) }"""


@needs_openvino
def test_functions_are_no_reason_to_refuse_a_model() -> None:
    """What is made of it has none; a file that has them OpenVINO does not load."""
    it = io.load(onnx.parser.parse_model(FUNCTION))
    refuse(TARGETS["openvino"], it)
    assert it.functions
    with pytest.raises(ModelError, match=r"cannot load the model: .*local\.Twice"):
        found("openvino").load(it)


@needs_openvino
def test_a_node_that_it_fails_at_is_named() -> None:
    """Where the runtime does: the product that cannot be."""
    it = model(
        "g (float[3, 4] x) => (float[M, N] y) { a = Relu (x) [wrong] y = MatMul (a, w) }", w=np.ones((5, 4), np.float32)
    )
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot load the model: Incompatible MatMul") as caught:
        found("openvino").load(it)
    assert caught.value.node == "wrong"


NESTED = """g (float[4] x, float[3, 4] xs) => (float[4] y, float[3, 4] ys) {
    y, ys = Scan <num_scan_inputs = 1, body = b (float[4] s, float[4] e) => (float[4] t, float[4] o) <bool c = {1}> {
        t = Add (s, e)
        o = If (c) <else_branch = g () => (float[4] m) <float p = {1}> { m = Mul (t, p) },
            then_branch = g () => (float[4] i) <bool d = {1}> {
                i = If (d) <else_branch = g () => (float[4] k) <float q = {1}> { k = Add (t, q) },
                            then_branch = g () => (float[4] j) <float r = {1}> { j = Mul (t, r) }> }>
    }> (x, xs) }"""


@needs_openvino
def test_what_openvino_takes_as_bytes_alone_is_no_model_that_it_loads() -> None:
    """Users deploy files, which it converts by other code."""
    it = model(NESTED)
    core().read_model(io.to_proto(it).SerializeToString())
    with pytest.raises(ModelError, match="cannot load the model"):
        found("openvino").load(it)


@needs_openvino
def test_a_result_that_is_no_tensor_is_refused_by_openvino() -> None:
    with pytest.raises(ModelError, match=r"cannot load the model: .*Sequence"):
        found("openvino").load(
            model("g (float[N, 4] x) => (seq(float[N, 2]) y) { y = SplitToSequence <axis = 1> (x) }")
        )


def product(runtime: Runtime, it: Model) -> Executed:
    """What it executes for the product, besides what lays out the weight."""
    kinds = ("MatMulIntegerToFloat", "MatMul", "FullyConnected")
    (one,) = (one for one in runtime.executed_nodes(it) if "product" in one.nodes and one.op_type in kinds)
    return one


def test_it_tells_which_nodes_it_executes_on_integers(runtime: Runtime) -> None:
    plain = model("g (float[2, 16] x) => (float[2, 4] y) { [product] y = MatMul (x, w) }", w=normal(16, 4))
    types = {"onnxruntime": ("int8", "float32"), "openvino": ("u8", "f32")}[runtime.name]
    both = [product(runtime, it) for it in (layer(np.ones((16, 4), np.int8)), plain)]
    assert tuple(one.precision for one in both) == types and all(one.primitive for one in both)


def test_models_are_timed_in_turn(runtime: Runtime) -> None:
    one, other = (model("g (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }") for _ in range(2))
    timed = runtime.latency(one, other, [{"x": normal(5, 4)}], rounds=7)
    assert (timed.rounds, timed.batch, timed.threads, timed.runtime) == (7, 5, 1, runtime.full_title)
    for timing in (timed.original, timed.quantized):
        assert 0 < timing.low <= timing.median <= timing.high


def test_x64_without_vnni_saturates(runtime: Runtime) -> None:
    """On any x64: two products of 255 · 127 are more than 16 bits hold; of 255 · 64 they are not."""
    feed = {"x": np.full((2, 16), 255, np.float32)}
    for weight, kept in ((127, False), (64, True)):
        it = layer(np.full((16, 4), weight, np.int8), scale=1.0)
        with runtime.without_vnni(it, ["y"]) as run:
            (y,), (again,) = run(feed), run(feed)
        assert (y == again).all() and (y == 16 * 255 * weight).all() == kept
        assert kept or (y == 8 * 32767).all()


@needs_openvino
@pytest.mark.parametrize("crashing", [1, 2])
def test_a_limit_that_ends_the_process_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch, crashing: int) -> None:
    """Some models end it where no more than AVX2 is allowed; a process that does nothing stands for that here."""
    begin, code = subprocess.Popen, "import sys; print('{\"primitives\": []}', flush=True); sys.stdin.readline()"

    def crashes(command: list[str], *, env: dict[str, str], **more: Any) -> Any:
        ends = env["ONEDNN_MAX_CPU_ISA"] in openvino_without_vnni.LIMITS[:crashing]
        return begin([sys.executable, "-c", code] if ends else command, env=env, **more)

    monkeypatch.setattr(openvino_without_vnni.subprocess, "Popen", crashes)
    it, feed = layer(np.full((16, 4), 127, np.int8), scale=1.0), {"x": np.full((2, 16), 255, np.float32)}
    with found("openvino").without_vnni(it, ["y"]) as run:
        if crashing == 1:
            assert (run(feed)[0] == 8 * 32767).all()
        else:
            with pytest.raises(ModelError, match="ends its process where it is limited to AVX2 or to AVX512_CORE"):
                run(feed)


@needs_openvino
def test_a_limit_without_effect_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a release of OpenVINO that does not heed it; and on a processor that is no x64."""
    one = found("openvino")
    monkeypatch.setattr(openvino_without_vnni, "BEYOND", ("",))
    with pytest.raises(ModelError, match="does not heed"), one.without_vnni(layer(np.ones((16, 4), np.int8)), ["y"]):
        pass
    monkeypatch.setattr(openvino_without_vnni.platform, "machine", lambda: "aarch64")
    with pytest.raises(ModelError, match="aarch64"), one.without_vnni(layer(np.ones((16, 4), np.int8)), ["y"]):
        pass


def test_a_runtime_that_is_not_installed_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    one = runtime_of(TARGETS["openvino"])
    assert isinstance(one, Missing) and "pip install 'quark-onnx[openvino]'" in one.reason


def test_each_target_has_a_runtime_of_the_table() -> None:
    assert {row.runtime for row in TARGETS.values()} - {""} == RUNTIMES.keys()
