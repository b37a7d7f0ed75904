"""The smallest graph of each operator that is quantized for the CPU, and the sites that placement gives it."""

from __future__ import annotations

IMAGE = "(float[1,4,6,6] x) => (float[A,B,C,D] y)"
ROW = "(float[2,4] x) => (float[2,5] y)"
TWO = "(float[2,4] x, float[2,4] z) => (float[A,B] y)"
PRODUCT = "<float[4,5] w> { [n] h = OP (x) [m] y = MatMul (h, w) }"

TABLE: dict[str, tuple[str, str]] = {
    "Conv": (
        IMAGE + " <float[4,4,3,3] w, float[4] b> { [n] y = Conv (x, w, b) }",
        "b:bias w:weight x:activation y:activation",
    ),
    "ConvTranspose": (
        IMAGE + " <float[4,4,3,3] w, float[4] b> { [n] y = ConvTranspose (x, w, b) }",
        "b:bias w:weight x:activation y:activation",
    ),
    "Gemm": (
        ROW + " <float[4,5] w, float[5] b> { [n] y = Gemm (x, w, b) }",
        "b:bias w:weight x:activation y:activation",
    ),
    "MatMul": (ROW + " <float[4,5] w> { [n] y = MatMul (x, w) }", "w:weight x:activation y:activation"),
    "Add": (IMAGE + " <float[4,1,1] k> { [n] y = Add (x, k) }", "k:constant x:activation y:activation"),
    "Mul": (TWO + " { [n] y = Mul (x, z) }", "x:activation y:activation z:activation"),
    "Concat": (TWO + " { [n] y = Concat <axis=1> (x, z) }", "x:activation y:activation z:activation"),
    "AveragePool": (IMAGE + " { [n] y = AveragePool <kernel_shape=[2,2]> (x) }", "x:activation y:activation"),
    "GlobalAveragePool": (IMAGE + " { [n] y = GlobalAveragePool (x) }", "x:activation y:activation"),
    "LeakyRelu": (IMAGE + " { [n] y = LeakyRelu (x) }", "x:activation y:activation"),
    "Softmax": (f"{ROW} {PRODUCT}".replace("OP", "Softmax"), "h:activation w:weight x:activation y:activation"),
    "Sigmoid": (f"{ROW} {PRODUCT}".replace("OP", "Sigmoid"), "h:activation w:weight x:activation y:activation"),
    "Identity": (f"{ROW} {PRODUCT}".replace("OP", "Identity"), "h:activation w:weight x:activation y:activation"),
    "Relu": (
        IMAGE + " <float[4,4,3,3] w> { [c] h = Conv (x, w) [n] y = Relu (h) }",
        "w:weight x:activation y:activation",
    ),
    "Clip": (
        IMAGE + " <float[4,4,3,3] w, float lo = {0}, float hi = {6}> { [c] h = Conv (x, w) [n] y = Clip (h, lo, hi) }",
        "w:weight x:activation y:activation",
    ),
    "DepthToSpace": (IMAGE + " { [n] y = DepthToSpace <blocksize=2> (x) }", "x:activation y:activation=x"),
    "Expand": (
        IMAGE + " <int64[4] s = {2,4,6,6}> { [n] y = Expand (x, s) }",
        "x:activation y:activation=x",
    ),
    "Flatten": ("(float[1,4,6,6] x) => (float[1,144] y) { [n] y = Flatten (x) }", "x:activation y:activation=x"),
    "Gather": (IMAGE + " <int64[1] i = {0}> { [n] y = Gather (x, i) }", "x:activation y:activation=x"),
    "MaxPool": (IMAGE + " { [n] y = MaxPool <kernel_shape=[2,2]> (x) }", "x:activation y:activation=x"),
    "Pad": (
        IMAGE + " <int64[8] p = {0,0,1,1,0,0,1,1}> { [n] y = Pad (x, p) }",
        "x:activation y:activation=x",
    ),
    "Reshape": (
        "(float[2,4] x) => (float[4,2] y) <int64[2] s = {4,2}> { [n] y = Reshape (x, s) }",
        "x:activation y:activation=x",
    ),
    "Resize": (
        IMAGE + " <float[4] s = {1,1,2,2}> { [n] y = Resize (x, , s) }",
        "x:activation y:activation=x",
    ),
    "Slice": (
        IMAGE + " <int64[1] a = {0}, int64[1] e = {1}> { [n] y = Slice (x, a, e) }",
        "x:activation y:activation=x",
    ),
    "SpaceToDepth": (IMAGE + " { [n] y = SpaceToDepth <blocksize=2> (x) }", "x:activation y:activation=x"),
    "Split": (
        "(float[2,4] x) => (float[2,2] y, float[2,2] z) { [n] y, z = Split <axis=1> (x) }",
        "x:activation y:activation=x z:activation=x",
    ),
    "Squeeze": ("(float[1,4] x) => (float[4] y) { [n] y = Squeeze (x) }", "x:activation y:activation=x"),
    "Tile": (
        "(float[2,4] x) => (float[4,4] y) <int64[2] s = {2,1}> { [n] y = Tile (x, s) }",
        "x:activation y:activation=x",
    ),
    "Transpose": ("(float[2,4] x) => (float[4,2] y) { [n] y = Transpose (x) }", "x:activation y:activation=x"),
    "Unsqueeze": (
        "(float[2,4] x) => (float[2,4,1] y) <int64[1] a = {2}> { [n] y = Unsqueeze (x, a) }",
        "x:activation y:activation=x",
    ),
}
