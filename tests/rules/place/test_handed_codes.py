"""What OpenVINO moves or joins hands codes on: one quantizer, where values are computed."""

from __future__ import annotations

import pytest
from quantized_models import graph, layout, placed, quantized

from quark_onnx.core.plan import Plan
from quark_onnx.graph.view import is_op

WEIGHTS = (
    "<float[4,4,1,1] w, float[4,2,1,1] h, float[4,8,1,1] j, int64[2] halves = {2, 2},"
    " int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, float[4] sizes = {1, 1, 2, 2}>"
)
HEAD = f"(float[1,4,6,6] x, float[1,4,6,6] z) => (float[A,B,C,D] y) {WEIGHTS}"


def on_openvino(nodes: str) -> Plan:
    return placed(graph(f"{HEAD} {{ {nodes} }}"), target="openvino")


def handed(plan: Plan) -> set[str]:
    return {name for name, site in plan.sites.items() if site.handed}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("[n] a = Conv (x, w) p, q = Split <axis=1> (a, halves) [m] y = Conv (p, h)", {"p", "q"}),
        (
            "a = Conv (x, w) p = MaxPool <kernel_shape=[2,2]> (a) q = Transpose <perm=[0,1,3,2]> (p) y = Conv (q, w)",
            {"p", "q"},
        ),
        ("a = Conv (x, w) p = Resize (a, , sizes) y = Conv (p, w)", {"p"}),
        ("a = Conv (x, w) b = Conv (z, w) p = Concat <axis=1> (a, b) y = Conv (p, j)", {"p"}),
        ("a = Conv (x, w) y = Conv (a, w)", set()),
        ("a = Conv (x, w) p = Tile (a, k) y = Conv (p, w)", set()),  # runs in float there
        ('a = Conv (x, w) p = Resize <mode="linear"> (a, , sizes) y = Conv (p, w)', set()),  # between two codes
    ],
)
def test_what_moves_and_joins_has_one_quantizer_in_front(nodes: str, expected: set[str]) -> None:
    model = graph(f"{HEAD.replace('int64[2] halves', 'int64[4] k = {1, 1, 2, 2}, int64[2] halves')} {{ {nodes} }}")
    plan = placed(model, target="openvino")
    assert handed(plan) == expected
    assert all(not site.handed for site in placed(model).sites.values())  # onnxruntime wants both
    made = quantized(model, target="openvino").quantized
    behind = {
        node.inputs[0].name for node in made.graph if is_op(node, "QuantizeLinear") and node.inputs[0] is not None
    }
    assert behind == {name for name, site in plan.sites.items() if site.role == "activation"} - expected


def test_what_is_joined_has_one_scale_unless_it_is_read_as_floats() -> None:
    joined = "a = Conv (x, w) b = Conv (z, w) p = Concat <axis=1> (a, b)"
    assert layout(on_openvino(f"{joined} y = Conv (p, j)")) == (
        "a:activation=p b:activation=p j:weight p:activation w:weight x:activation z:activation"
    )
    assert layout(on_openvino(f"{joined} y = Sigmoid (p)")) == "w:weight x:activation z:activation"


@pytest.mark.parametrize(
    ("nodes", "quantized_node"),
    [
        ("r = Relu (x) s = Relu (z) [n] p = Concat <axis=2> (r, s) y = Conv (p, w)", True),
        ("r = Relu (x) [n] p = Concat <axis=2> (r, z) y = Conv (p, w)", False),
        ("[n] p = Concat <axis=-3> (x, z) y = Conv (p, j)", True),
        ("r = Relu (x) [n] y = ConvTranspose (r, w)", True),
        ("r = Relu (x) p = MaxPool <kernel_shape=[2,2]> (r) [n] y = ConvTranspose (p, w)", True),
        ("[n] y = ConvTranspose (x, w)", False),
        ("r = LeakyRelu (x) [n] y = ConvTranspose (r, w)", False),
    ],
)
def test_kernels_without_a_zero_point_read_what_is_never_negative(nodes: str, quantized_node: bool) -> None:
    plan = on_openvino(nodes)
    assert ("n" in plan.nodes) is quantized_node
    if not quantized_node:
        assert (
            plan.notes["n"]
            == "what it reads may be negative: with a zero point other than 0 the target runs it in float"
        )


@pytest.mark.parametrize(
    ("nodes", "beside"),
    [
        ("a = Conv (x, w) s = Sigmoid (a) b = Mul (a, s) c1 = Conv (b, w) y = Mul (b, c1)", False),
        ("a = Conv (x, w) b = Softmax (a) c1 = Conv (b, w) y = Mul (b, c1)", True),  # no kernel of integers makes it
        ("b = Add (x, z) c1 = Conv (b, w) y = Mul (b, c1)", True),
    ],
)
def test_floats_are_read_beside_codes_where_no_convolution_makes_them(nodes: str, beside: bool) -> None:
    assert on_openvino(nodes).sites["b"].beside is beside


@pytest.mark.parametrize("pool", ["AveragePool <kernel_shape=[2,2]>", "GlobalAveragePool"])
def test_what_is_averaged_stays_float(pool: str) -> None:
    nodes = f"a = Conv (x, w) b = {pool} (a) y = Conv (b, w)"
    assert layout(on_openvino(nodes)) == "b:activation w:weight x:activation"
    assert "a:activation" in layout(placed(graph(f"{HEAD} {{ {nodes} }}"), target="tensorrt"))
