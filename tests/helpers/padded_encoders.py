"""Encoders that read padded tokens, and samples for them."""

from __future__ import annotations

import numpy as np
import onnx
from text_models import normal, text_model

HIDDEN = {
    "zero": "i = Sub (unit, rows) m = Mul (i, huge) z = Add (s, m)",
    "nonzero": "m = Mul (rows, huge) z = Add (s, m)",
    "low": "z = Add (s, rows)",
    "none": "z = Identity (s)",
}
"""What hides scores, by what the mask holds where there is padding."""

TEXT = """g (int64[{B},{T}] ids, {TYPE}[{B},{T}] mask) => (float[{B},{T},12] y, float[{B},12] pooled) {
    x = Gather (table, ids) {EXTRA} q = MatMul (x0, wq) k = MatMul (x0, wk) v = MatMul (x0, wv)
    kt = Transpose <perm = [0,2,1]> (k) s = MatMul (q, kt)
    f = Cast <to = 1> (mask) rows = Unsqueeze (f, one) {HIDE}
    p = Softmax <axis = -1> (z) c = MatMul (p, v) o = MatMul (c, wo) b = Add (o, bias) y = Add (b, x0)
    {POOL} }"""
FIRST = "pooled = Gather <axis = 1> (y, zero)"
LAST = "pooled = Gather <axis = 1> (y, minus)"
MEAN = "pooled = ReduceMean <axes = [1], keepdims = 0> (y)"


def encoder(
    batch: object = "B",
    length: object = "T",
    padding: str = "zero",
    kind: str = "int64",
    extra: str = "x0 = Identity (x)",
    pool: str = FIRST,
    head: str = "",
) -> onnx.ModelProto:
    """One block of attention over tokens, with what it gives at every position and a pooled vector.

    padding: what the mask holds where there is padding, see `HIDDEN`. head: what is put in front of the inputs.
    """
    text = TEXT.replace("{EXTRA}", extra).replace("{HIDE}", HIDDEN[padding]).replace("{POOL}", pool)
    text = text.replace("g (", f"g ({head}").replace("{TYPE}", kind)
    weights = {name: normal(12, 12, seed=i) / 3 for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    return text_model(
        text.replace("{B}", str(batch)).replace("{T}", str(length)),
        table=normal(30, 12, seed=9),
        places=normal(16, 12, seed=8),
        bias=normal(12),
        unit=np.float32(1),
        huge=np.float32(-1e4),
        one=np.array([1]),
        zero=np.int64(0),
        minus=np.int64(-1),
        wide=np.array([-1, 12]),
        **weights,
    )


def sentences(
    count: int = 12, batch: int = 1, length: int = 16, *, left: bool = False, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Tokens from 1 on, 3 to 7 of them in each of `batch` rows; 0 and a mask of 0 elsewhere."""
    rng = np.random.default_rng(seed)
    feeds = []
    for _ in range(count):
        ids = np.zeros((batch, length), np.int64)
        for row in ids:
            size = int(rng.integers(3, 8))
            row[length - size if left else 0 :][:size] = rng.integers(1, 30, size)
        feeds.append({"ids": ids, "mask": (ids > 0).astype(np.int64)})
    return feeds


def bare(feeds: list[dict[str, np.ndarray]], mask: str = "mask") -> list[dict[str, np.ndarray]]:
    """The same sentence by sentence, without their padding."""
    found = []
    for feed in feeds:
        for row, kept in enumerate(feed[mask] != 0):
            found.append({name: array[row : row + 1, kept] for name, array in feed.items()})
    return found
