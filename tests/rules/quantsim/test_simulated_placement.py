"""Simulated placement: the exact sites of small graphs, each beside a twin where the rule must not act.

The layouts of `PLACED` were compared with what aimet-onnx 2.42 sets up for the same graph and configuration. They are
equal, but for three: it takes any power for the square of a LayerNormalization ("no square, no ln"), shares the
quantizer of a hidden state with the input ("recurrent"), and stops at an empty model_input beside constants ("inputs
of an operator"). Sites are written `tensor:role bits symmetric@axis[range]=leader`: w8s@0 is a weight of 8 bits,
symmetric, with a scale per index of axis 0; a8a[0,?] an asymmetric activation whose range begins at 0.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_models import feeds, graph, run

from quark_onnx import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.aimet_runtime_config import PASSES, load_runtime_config
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.observe import observe
from quark_onnx.graph import Model, io
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.simulated_placement import simulated_sites

PLAIN: dict[str, Any] = {
    "defaults": {
        "ops": {"is_output_quantized": "True"},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
    },
    "params": {"bias": {"is_quantized": "False"}},
    "op_type": {},
    "supergroups": [],
    "model_input": {"is_input_quantized": "True"},
    "model_output": {},
}


def config(defaults: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """PLAIN with other sections, and other defaults."""
    made = copy.deepcopy(PLAIN) | sections
    made["defaults"] |= defaults or {}
    return made


def between(low: float, high: float | None = None) -> dict[str, Any]:
    return {"encoding_constraints": {"min": low} | ({} if high is None else {"max": high})}


SILENT = config({"ops": {}, "params": {}}, params={}, model_input={})
RANGES = {"Sigmoid": between(0, 1), "Softmax": between(0, 1), "Tanh": between(-1, 1), "Relu": between(0)}
HTP = config({"hw_version": "V73"}, op_type=RANGES, supergroup_pass_list=list(PASSES))
FUSED = config(supergroup_pass_list=list(PASSES))
ONLY_LN = config(supergroup_pass_list=["LayerNormalization"])
LONG = config(supergroups=[{"op_list": ["Conv", "Relu"]}, {"op_list": ["Conv", "Relu", "Conv", "Relu"]}])

IMAGE = (
    "(float[1,4,6,6] x) => (float[1,?,?,?] y) <float[4,4,3,3] w, float[4,4,3,3] w2, float[4,1,3,3] wd, float[4] b, "
    "float[8,8,1,1] w8, float[1,4,6,6] k> {{ {} }}"
)
CONV = "a = Conv<pads=[1,1,1,1]>(x,w,b)"
CONV2 = "c = Conv<pads=[1,1,1,1]>(x,w2)"
DEEP = "a = Conv<pads=[1,1,1,1],group=4>(x,wd,b)"
TURN = "Transpose<perm=[0,1,3,2]>"
ROWS = "(float[2,8] x) => (float[2,8] y) <float[8,8] w, float[8,8] w2, float[8] b, float[1,8] b2, float[8] k> {{ {} }}"
CUBES = "(float[2,8,8] x) => (float[2,8,8] y) <float[8,8] w, float[2,8,8] w3, float[8] b> {{ {} }}"
LN = (
    "(float[2,8] x) => (float[2,8] y) <float two = {{2.0}}, float e = {{0.00001}}, float h = {{-0.5}}, float[8] s, "
    "float[8] b> {{ r = Sigmoid(x) m = ReduceMean<axes=[-1]>(r) c = Sub(r,m) {} }}"
)
RMS = LN.replace("m = ReduceMean<axes=[-1]>(r) c = Sub(r,m)", "c = Neg(r)")
CORE = "v = ReduceMean<axes=[-1]>(p) a = Add(v,e) q = Sqrt(a)"
MASKED = (
    "(float[1,2,4,4] x, bool[1,2,4,4] m) => (float[1,2,4,4] y) <float c = {{{}}}, int64[1] ax = {{-1}}> {{ "
    "s = Sigmoid(x) l = ReduceMin(s,ax) h = Add(l,c) z = Where(m,s,h) p = Softmax<axis=-1>(z) y = Neg(p) }}"
)
VOLUME = "(float[1,2,4,4,4] x) => (float[1,?,?,?,?] y) <float[2,2,3,3,3] w> {{ {} }}"
DECONV = "(float[1,4,6,6] x) => (float[1,?,?,?] y) <float[4,2,3,3] w> {{ {} }}"

PLACED: dict[str, tuple[Any, str, str]] = {
    # supergroups: nothing between Conv and Relu — unless someone else reads it, or the target does not fuse it
    "supergroup": (None, IMAGE.format(f"{CONV} y = Relu(a)"), "w:w8s@0 x:a8a y:a8a"),
    "read twice": (None, IMAGE.format(f"{CONV} r = Relu(a) y = Add(a,r)"), "a:a8a r:a8a=a w:w8s@0 x:a8a y:a8a"),
    "depthwise": (None, IMAGE.format(f"{DEEP} y = Relu(a)"), "a:a8a wd:w8s@0 x:a8a y:a8a=a"),
    "volume": (None, VOLUME.format("a = Conv(x,w) y = Relu(a)"), "a:a8a w:w8s@0 x:a8a y:a8a=a"),
    "longest first": (
        LONG,
        IMAGE.format(f"{CONV} r = Relu(a) c = Conv<pads=[1,1,1,1]>(r,w2) y = Relu(c)"),
        "w2:w8s w:w8s x:a8a y:a8a",
    ),
    "squared": (
        config(supergroups=[{"op_list": ["Conv", "Mul"]}]),
        IMAGE.format(f"{CONV} y = Mul(a,a)"),
        "a:a8a w:w8s x:a8a y:a8a",
    ),
    # Concat: the inputs follow the output — unless read by others, or held in another range
    "concat": (
        None,
        IMAGE.format(f"{CONV} {CONV2} y = Concat<axis=1>(a,c)"),
        "a:a8a=y c:a8a=y w2:w8s@0 w:w8s@0 x:a8a y:a8a",
    ),
    "concat of an input": (None, IMAGE.format(f"{CONV} y = Concat<axis=1>(a,x)"), "a:a8a=y w:w8s@0 x:a8a y:a8a"),
    "concat of a constant": (
        None,
        IMAGE.format(f"{CONV} y = Concat<axis=1>(a,k)"),
        "a:a8a=y k:c8a=y w:w8s@0 x:a8a y:a8a",
    ),
    "concat behind moves": (
        None,
        IMAGE.format(f"{CONV} t = {TURN}(a) {CONV2} y = Concat<axis=1>(t,c)"),
        "a:a8a=y c:a8a=y w2:w8s@0 w:w8s@0 x:a8a y:a8a",
    ),
    "concat of concat": (
        HTP,
        IMAGE.format(f"{CONV} {CONV2} k2 = Concat<axis=1>(a,c) s = Sigmoid(c) y = Concat<axis=1>(k2,s)"),
        "a:a8a=y c:a8a k2:a8a=y s:a8a[0,1] w2:w8s w:w8s x:a8a y:a8a",
    ),
    "concat of one range": (
        HTP,
        IMAGE.format("a = Sigmoid(x) c = Neg(x) s = Sigmoid(c) y = Concat<axis=1>(a,s)"),
        "a:a8a[0,1]=y c:a8a s:a8a[0,1]=y x:a8a y:a8a[0,1]",
    ),
    "concat of two ranges": (
        HTP,
        IMAGE.format("a = Sigmoid(x) c = Neg(x) y = Concat<axis=1>(a,c)"),
        "a:a8a[0,1] c:a8a=y x:a8a y:a8a",
    ),
    # Relu and AveragePool: the output follows the input — unless its range would cut what others read
    "relu over concat": (
        None,
        IMAGE.format(f"{DEEP} r = Relu(a) {CONV2} y = Concat<axis=1>(r,c)"),
        "a:a8a c:a8a=y r:a8a=a w2:w8s@0 wd:w8s@0 x:a8a y:a8a",
    ),
    "pool": (None, IMAGE.format(f"{CONV} y = AveragePool<kernel_shape=[2,2]>(a)"), "a:a8a w:w8s@0 x:a8a y:a8a=a"),
    "pool behind moves": (
        None,
        IMAGE.format(f"{CONV} m = MaxPool<kernel_shape=[2,2]>(a) y = AveragePool<kernel_shape=[2,2]>(m)"),
        "a:a8a w:w8s@0 x:a8a y:a8a=a",
    ),
    "range goes up": (HTP, IMAGE.format(f"{DEEP} y = Relu(a)"), "a:a8a[0,?] wd:w8s x:a8a y:a8a[0,?]=a"),
    "range stays": (
        HTP,
        IMAGE.format(f"{DEEP} t = {TURN}(a) r = Relu(t) y = Add(r,t)"),
        "a:a8a r:a8a[0,?] wd:w8s x:a8a y:a8a",
    ),
    # parameters
    "gemm": (None, ROWS.format("y = Gemm(x,w,b)"), "w:w8s@1 x:a8a y:a8a"),
    "gemm transposed": (None, ROWS.format("y = Gemm<transB=1>(x,w,b)"), "w:w8s@0 x:a8a y:a8a"),
    "weight behind Identity": (None, ROWS.format("i = Identity(w) y = Gemm(x,i,b)"), "w:w8s@1 x:a8a y:a8a"),
    "weight behind Transpose": (None, ROWS.format("t = Transpose(w) y = MatMul(x,t)"), "w:w8s@0 x:a8a y:a8a"),
    "weight on the left": (None, ROWS.replace("[2,8]", "[8,8]").format("y = MatMul(w,x)"), "w:c8a x:a8s y:a8a"),
    "deconvolution": (None, DECONV.format("y = ConvTranspose(x,w)"), "w:w8s@1 x:a8a y:a8a"),
    "grouped deconvolution": (None, DECONV.format("y = ConvTranspose<group=2>(x,w)"), "w:w8s x:a8a y:a8a"),
    "biases too": (
        config({"per_channel_quantization": "True"}, params={}),
        IMAGE.format(f"{CONV} y = Neg(a)"),
        "a:a8a b:b8s@0 w:w8s@0 x:a8a y:a8a",
    ),
    # MatMul and Add as one — the row must be a row, and nobody else may read the product
    "product and row": (None, ROWS.format("m = MatMul(x,w) y = Add(b,m)"), "w:w8s@1 x:a8a y:a8a"),
    "product, row, relu": (None, ROWS.format("m = MatMul(x,w) a = Add(m,b) y = Relu(a)"), "w:w8s@1 x:a8a y:a8a"),
    "transposed and row": (None, ROWS.format("t = Transpose(w) m = MatMul(x,t) y = Add(m,b)"), "w:w8s@0 x:a8a y:a8a"),
    "product and matrix": (None, ROWS.format("m = MatMul(x,w) y = Add(m,b2)"), "b2:c8a m:a8a w:w8s@1 x:a8a y:a8a"),
    "product read twice": (
        None,
        ROWS.format("m = MatMul(x,w) a = Add(m,b) y = Mul(a,m)"),
        "a:a8a b:c8a m:a8a w:w8s@1 x:a8a y:a8a",
    ),
    "products and row": (
        None,
        CUBES.format("m = MatMul(x,w3) a = Add(m,b) y = Relu(a)"),
        "a:a8a w3:w8s@2 x:a8a y:a8a=a",
    ),
    "no pass, no fusion": (PLAIN, ROWS.format("m = MatMul(x,w) y = Add(m,b)"), "b:c8a m:a8a w:w8s x:a8a y:a8a"),
    # normalizations written out
    "ln": (
        FUSED,
        LN.format(f"p = Pow(c,two) {CORE} n = Div(c,q) g = Mul(n,s) y = Add(g,b)"),
        "r:a8a s:w8a x:a8a y:a8a",
    ),
    "ln of products": (
        FUSED,
        LN.format(f"p = Mul(c,c) {CORE} i = Reciprocal(q) n = Mul(c,i) y = Mul(s,n)"),
        "r:a8a s:w8a x:a8a y:a8a",
    ),
    "ln without scale": (ONLY_LN, LN.format(f"p = Pow(c,two) {CORE} y = Div(c,q)"), "r:a8a x:a8a y:a8a"),
    "rms inside": (FUSED, LN.format(f"p = Pow(c,two) {CORE} y = Div(c,q)"), "c:a8a m:a8a r:a8a x:a8a y:a8a"),
    "no square, no ln": (
        config(supergroup_pass_list=["LayerNormalization"]),
        LN.replace("{{2.0}}", "{{4.0}}").format(f"p = Pow(c,two) {CORE} y = Div(c,q)"),
        "a:a8a c:a8a e:c8a m:a8a p:a8a q:a8a r:a8a two:c8a v:a8a x:a8a y:a8a",
    ),
    "rms": (
        FUSED,
        RMS.format("p = Mul(c,c) v = ReduceMean<axes=[-1]>(p) a = Add(v,e) q = Pow(a,h) n = Mul(q,c) y = Mul(s,n)"),
        "c:a8a r:a8a s:w8a x:a8a y:a8a",
    ),
    "masked softmax": (HTP, MASKED.format("-20.0"), "p:a8a s:a8a[0,1] x:a8a y:a8a"),
    "mask too near": (
        HTP,
        MASKED.format("-19.0"),
        "c:c8a h:a8a p:a8a[0,1] s:a8a[0,1] x:a8a y:a8a z:a8a",
    ),
    # exceptions
    "layer norm": (None, ROWS.format("y = LayerNormalization(x,k,b)"), "k:w8a x:a8a y:a8a"),
    "instance norm": (
        config({"ops": {"is_output_quantized": "True", "is_symmetric": "True"}}),
        "(float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4] s, float[4] b> { y = InstanceNormalization(x,s,b) }",
        "s:w8s x:a8s y:a8s",
    ),
    "computed weight": (
        PLAIN,
        "(float[1,4,6,6] x, float[4,4,1,1] v) => (float[1,4,6,6] y) { s = Sigmoid(v) y = Conv(x,s) }",
        "s:a8s v:a8a x:a8a y:a8a",
    ),
    "product of activations": (
        HTP,
        CUBES.format("q = MatMul(x,w) t = Transpose<perm=[0,2,1]>(q) s = MatMul(x,t) p = Softmax(s) y = MatMul(q,p)"),
        "p:a8s[0,1] q:a8s s:a8a w:w8s x:a8a y:a8a",
    ),
    # who moves values carries no quantizer, unless named; integers never
    "moves": (PLAIN, IMAGE.format(f"{CONV} m = MaxPool<kernel_shape=[2,2]>(a) y = Neg(m)"), "a:a8a w:w8s x:a8a y:a8a"),
    "named": (
        config(op_type={"MaxPool": {"is_symmetric": "True"}}),
        IMAGE.format(f"{CONV} m = MaxPool<kernel_shape=[2,2]>(a) y = Neg(m)"),
        "a:a8s m:a8s w:w8s x:a8a y:a8a",
    ),
    "never": (
        config(op_type={"Transpose": {"is_output_quantized": "True"}}),
        IMAGE.format(f"{CONV} t = {TURN}(a) y = Neg(t)"),
        "a:a8a w:w8s x:a8a y:a8a",
    ),
    "cast": (
        PLAIN,
        ROWS.format("s = Sigmoid(x) i = Cast<to=7>(s) f = Cast<to=1>(i) r = Relu(f) y = Add(r,s)"),
        "f:a8a r:a8a=f s:a8a x:a8a y:a8a",
    ),
    "resize": (
        PLAIN,
        "(float[1,4,6,6] x) => (float[1,4,12,12] y) <float[4] sc = {1.0,1.0,2.0,2.0}> { s = Neg(x) y = Resize(s,,sc) }",
        "s:a8a x:a8a y:a8a=s",
    ),
    "embedding": (
        None,
        "(int64[3] i) => (float[3,8] y) <float[9,8] t, float[8,8] w> { g = Gather(t,i) y = MatMul(g,w) }",
        "t:c8a w:w8s@1 y:a8a",
    ),
    "constant of shape": (
        PLAIN,
        "(float[2,8] x) => (float[?,?] y) { s = Shape(x) z = ConstantOfShape(s) y = Add(x,z) }",
        "x:a8a y:a8a z:a8a",
    ),
    "recurrent": (
        PLAIN,
        "(float[3,1,4] x) => (float[3,1,1,5] y, float[1,1,5] yh) <float[1,15,4] w, float[1,15,5] r, float[1,30] b> "
        "{ s = Neg(x) y, yh = GRU<hidden_size=5>(s,w,r,b) }",
        "r:w8s s:a8a w:w8s x:a8a y:a8a yh:a8a=y",
    ),
    # sections: each overrides the ones before
    "nothing": (SILENT, IMAGE.format(f"{CONV} y = Relu(a)"), ""),
    "outputs of the model": (
        SILENT | {"model_output": {"is_output_quantized": "True"}},
        IMAGE.format(f"{CONV} y = MaxPool<kernel_shape=[2,2]>(a)"),
        "y:a8a",
    ),
    "inputs of an operator": (
        SILENT | {"op_type": {"Add": {"is_input_quantized": "True"}}},
        ROWS.format("a = Neg(x) y = Add(a,k)"),
        "a:a8a k:c8a",
    ),
    "params of a type": (
        SILENT | {"params": {"weight": {"is_quantized": "True", "is_symmetric": "False"}}},
        ROWS.format("y = Gemm(x,w,b)"),
        "w:w8a",
    ),
    "params of an operator": (
        config(op_type={"Gemm": {"params": {"weight": {"is_symmetric": "False"}, "bias": {"is_quantized": "True"}}}}),
        ROWS.format("y = Gemm(x,w,b)"),
        "b:b8s w:w8a x:a8a y:a8a",
    ),
    "op_type over defaults": (
        config(op_type={"Neg": {"is_output_quantized": "False"}}),
        ROWS.format("a = Neg(x) y = Exp(a)"),
        "x:a8a y:a8a",
    ),
    "supergroup over op_type": (
        config(op_type={"Neg": {"is_output_quantized": "True"}}, supergroups=[{"op_list": ["Neg", "Exp"]}]),
        ROWS.format("a = Neg(x) y = Exp(a)"),
        "x:a8a y:a8a",
    ),
    "model_input over op_type": (
        SILENT | {"model_input": {"is_input_quantized": "True"}},
        ROWS.format("y = Add(x,k)"),
        "k:c8a x:a8a",
    ),
    "model_output over op_type": (
        config(op_type={"Exp": {"is_output_quantized": "False"}}, model_output={"is_output_quantized": "True"}),
        ROWS.format("a = Exp(x) y = Exp(a)"),
        "x:a8a y:a8a",
    ),
    "even range": (config(op_type=RANGES), ROWS.format("y = Tanh(x)"), "x:a8a y:a8s[-1,1]"),
}


def layout(plan: Plan) -> str:
    """The sites, sorted by name."""
    parts = []
    for site in plan.sites.values():
        text = f"{site.tensor}:{site.role[0]}{site.format.bits}{'s' if site.format.symmetric else 'a'}"
        text += "" if site.format.axis is None else f"@{site.format.axis}"
        if site.range is not None:
            text += f"[{site.range[0]:g},{site.range[1]:g}]"
        text += "" if site.low is None else f"[{site.low:g},?]"
        parts.append(text + (f"={site.group}" if site.group != site.tensor else ""))
    return " ".join(sorted(parts))


def simulated(model: Model, source: Any = None, **formats: Format) -> Plan:
    """Sites only. The model must come out untouched, and every node be in the plan or have a reason not to."""
    before = io.fingerprint(model)
    plan = simulated_sites(model, load_runtime_config(source), **formats).plan
    assert io.fingerprint(model) == before == plan.model
    assert sorted([*plan.nodes, *plan.notes]) == sorted(node.name or "" for node in model.graph)
    return plan


def ranged(model: Model, plan: Plan) -> Plan:
    """The plan with a scale for every site: none may be lost."""
    statistics = observe(model, feeds(model), observed_tensors(plan), lambda done: None)
    done = choose_ranges(model, plan, statistics, QuantizationConfig())
    assert done.sites.keys() == plan.sites.keys()
    return done


def case_model(case: str) -> Model:
    """ReduceMean and ReduceMin have their axes as attributes up to opset 17."""
    return graph(PLACED[case][1], opset=18 if "ReduceMin" in PLACED[case][1] else 17)


@pytest.mark.parametrize("case", PLACED)
def test_sites(case: str) -> None:
    assert layout(simulated(case_model(case), PLACED[case][0])) == PLACED[case][2]


@pytest.mark.parametrize("case", PLACED)
def test_the_plan_is_an_ordinary_one(case: str, tmp_path: Path) -> None:
    """Every site gets a range, the model is written, valid, and computes what the float model does, about."""
    model = case_model(case)
    plan = ranged(model, simulated(model, PLACED[case][0]))
    plan.save(tmp_path / "plan")
    assert Plan.load(tmp_path / "plan").sites == plan.sites
    simulation = apply(model, plan)
    io.check(simulation)
    feed = feeds(model)[0]
    for want, got in zip(run(model, feed), run(simulation, feed), strict=True):
        assert want.shape == got.shape
        assert np.square(want - got).sum() <= 0.05 * np.square(want).sum()


def test_members_of_a_group_have_one_format_and_one_leader() -> None:
    for case in PLACED:
        plan = simulated(case_model(case), PLACED[case][0])
        for site in plan.sites.values():
            leader = plan.sites[site.group]
            assert (leader.group, leader.format) == (site.group, site.format)


def test_what_put_a_quantizer_there() -> None:
    plan = simulated(graph(ROWS.format("a = Gemm(x,w,b) c = Mul(a,k) y = Exp(c)")))
    rules = {tensor: site.rule for tensor, site in plan.sites.items()}
    assert rules == {
        "w": "defaults.params",
        "x": "model_input",
        "k": "model_input",
        **dict.fromkeys("acy", "defaults.ops"),
    }
    asked = SILENT | {"op_type": {"Exp": {"is_output_quantized": "True"}, "Neg": {"is_input_quantized": "True"}}}
    plan = simulated(graph(ROWS.format("a = Neg(x) y = Exp(a)")), asked)
    assert {tensor: site.rule for tensor, site in plan.sites.items()} == {"x": "op_type.Neg", "y": "op_type.Exp"}


def test_nodes_and_notes() -> None:
    plan = simulated(graph(LN.format(f"p = Pow(c,two) {CORE} n = Div(c,q) g = Mul(n,s) y = Add(g,b)")), FUSED)
    assert plan.notes["Sqrt_q"] == "inside one LayerNormalization of the target"
    assert plan.nodes["Mul_g"] == ("s",)
    plan = simulated(graph("(float[2] x) => (int64[1] y) { s = Shape(x) y = Neg(s) }"))
    assert plan.notes["Neg_y"] == "'y' holds int64; only float32 is quantized"
    plan = simulated(graph(ROWS.format("a = Neg(x) y = Exp(a)")), SILENT)
    assert set(plan.notes.values()) == {"the runtime configuration puts no quantizer around it"}


def test_a_model_of_float16_stays_as_it_is() -> None:
    plan = simulated(graph("(float16[2] x) => (float16[2] y) { y = Neg(x) }"))
    assert not plan.sites
    assert plan.notes == {"Neg_y": "'y' holds float16; only float32 is quantized"}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("one_sided", [False, True])
def test_flags_of_symmetric_grids(strict: bool, one_sided: bool) -> None:
    flags = {"strict_symmetric": str(strict), "unsigned_symmetric": str(one_sided)}
    plan = simulated(graph(ROWS.format("y = Gemm(x,w,b)")), config(flags))
    weight, data = plan.sites["w"].format, plan.sites["x"].format
    assert (weight.strict, weight.one_sided, weight.lo) == (strict, one_sided, -127 if strict else -128)
    assert (data.strict, data.one_sided, data.lo) == (False, False, 0)


def test_widths() -> None:
    """Parameters of normalizations have 8 bits at least, and are symmetric from 16 on."""
    model = graph(ROWS.format("a = LayerNormalization(x,k,b) y = Gemm(a,w,b)"), opset=21)
    narrow = simulated(model, activation=Format(16, signed=False), weight=Format(4, symmetric=True))
    assert layout(narrow) == "a:a16a k:w8a w:w4s@1 x:a16a y:a16a"
    assert narrow.sites["w"].format.dtype == "int8"
    assert simulated(model, weight=Format(16, symmetric=True)).sites["k"].format.symmetric
    text = "(float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4] s, float[4] b> { y = InstanceNormalization(x,s,b) }"
    like = simulated(graph(text, opset=21), activation=Format(16, signed=False), weight=Format(4, symmetric=True))
    assert layout(like) == "s:w16a x:a16a y:a16a"
    np.testing.assert_array_less(0, ranged(model, narrow).qparams["w"].scale)


def test_widths_of_products() -> None:
    """Old hardware has 8-bit second factors only; new one wants wide ones symmetric."""
    model = graph("(float[2,8] x, float[8,8] z) => (float[2,8] y) { a = Neg(x) c = Exp(z) y = MatMul(a,c) }", opset=21)
    wide = Format(16, signed=False)
    plain = config({"params": {"is_quantized": "True"}})
    assert layout(simulated(model, plain, activation=wide)) == "a:a16a c:a16a x:a16a y:a16a z:a16a"
    for version, want in (("V68", "c:a8s"), ("V73", "c:a16s")):
        asked = copy.deepcopy(plain)
        asked["defaults"]["hw_version"] = version
        assert want in layout(simulated(model, asked, activation=wide))


def test_the_lower_end_is_held() -> None:
    """A range that is known to begin at 0 does, wherever the tensor before it was seen."""
    model = graph(IMAGE.format(f"{DEEP} y = Relu(a)"))
    held, free = (ranged(model, simulated(model, source)) for source in (HTP, PLAIN))
    assert held.qparams["a"].zero_point == 0
    assert free.qparams["a"].zero_point > 0
    feed = feeds(model)[0]
    want = run(model, feed)[0]
    errors = [np.abs(run(apply(model, plan), feed)[0] - want).mean() for plan in (held, free)]
    assert errors[0] < errors[1]


def test_contradicting_operator_types() -> None:
    model = graph(ROWS.format("a = Neg(x) y = Exp(a)"))
    on = {"Neg": {"is_output_quantized": "False"}, "Exp": {"is_input_quantized": "True"}}
    with pytest.raises(ConfigError, match=r"op_type.Neg.is_output_quantized and op_type.Exp.is_input_quantized.*'a'"):
        simulated(model, config(op_type=on))
    even = {"Neg": {"is_symmetric": "True"}, "Exp": {"is_symmetric": "False"}}
    with pytest.raises(ConfigError, match=r"op_type.Neg.is_symmetric and op_type.Exp.is_symmetric.*'a'"):
        simulated(model, config(op_type=even))
    simulated(graph(ROWS.format("a = Neg(x) c = Sin(a) y = Exp(c)")), config(op_type=even))


def test_asking_for_inputs_beats_what_is_known_of_moves() -> None:
    """AIMET stops here: that MaxPool needs no quantizer contradicts what is asked for."""
    asked = config(op_type={"Neg": {"is_input_quantized": "True"}})
    plan = simulated(graph(IMAGE.format(f"{CONV} m = MaxPool<kernel_shape=[2,2]>(a) y = Neg(m)")), asked)
    assert layout(plan) == "a:a8a m:a8a w:w8s x:a8a y:a8a"


def test_two_ranges_that_do_not_fit_stay_two() -> None:
    """AIMET stops here: a Relu whose range begins at 0, behind a Sigmoid that ends at 1."""
    plan = simulated(graph(ROWS.format("s = Sigmoid(x) y = Relu(s)")), HTP)
    assert layout(plan) == "s:a8a[0,1] x:a8a y:a8a[0,?]"


def test_weights_without_channels_keep_one_scale() -> None:
    """AIMET stops here: per channel by default, and a weight that has no such axis."""
    model = case_model("recurrent")
    plan = simulated(model, config({"per_channel_quantization": "True"}))
    assert plan.sites["w"].format.axis is None
    assert plan.remarks["w"] == "one scale: GRU has no axis of channels to count along"


def test_axes_as_inputs() -> None:
    """AIMET misses this: the same normalization in a newer operator set."""
    text = LN.format("p = Pow(c,two) v = ReduceMean(p,ax) a = Add(v,e) q = Sqrt(a) n = Div(c,q) y = Mul(n,s)")
    text = text.replace("ReduceMean<axes=[-1]>(r)", "ReduceMean(r,ax)")
    plan = simulated(graph(text, opset=18, ax=np.array([-1])), FUSED)
    assert layout(plan) == "r:a8a s:w8a x:a8a y:a8a"


def test_bodies_read_what_is_quantized_outside() -> None:
    body = "then_branch = t () => (float[2] p) { p = Neg(a) }, else_branch = e () => (float[2] n) { n = Exp(a) }"
    model = graph(f"(float[2] x, bool c) => (float[2] y) {{ a = Exp(x) y = If<{body}>(c) }}")
    plan = ranged(model, simulated(model))
    assert layout(plan) == "a:a8a x:a8a y:a8a"
    simulation = apply(model, plan)
    feed = feeds(model)[0]
    assert np.allclose(run(model, feed)[0], run(simulation, feed)[0], atol=0.1)
