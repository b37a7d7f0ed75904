"""How long a layer is expected to take: more work, more seconds; and the positions that it is seen at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from text_models import normal
from tuning_cases import case, draw

from quark_onnx.core.settings.fast_finetune import AdaRound, FastFinetune, Nearest
from quark_onnx.engine.layers import match
from quark_onnx.stages.finetune.expected_seconds import expected_seconds, positions_of
from quark_onnx.stages.finetune.layer_statistics import most_positions

ROUND = AdaRound(num_iterations=500)
sizes = st.integers(1, 2000)
rows = st.tuples(sizes, sizes, sizes)


@limits(max_examples=40)
@given(rows, st.integers(1, 10**6), st.integers(0, 2), st.sampled_from([ROUND, Nearest(), Nearest(scale_search=False)]))
def test_more_work_never_takes_less(
    shape: tuple[int, int, int], positions: int, axis: int, options: FastFinetune
) -> None:
    seconds = expected_seconds(shape, positions, options, 8)
    larger: Any = tuple(2 * n if i == axis and n > 1 else n for i, n in enumerate(shape))
    assert 0 < seconds <= expected_seconds(larger, positions, options, 8)
    assert seconds <= expected_seconds(shape, 2 * positions, options, 8)
    assert seconds <= expected_seconds(shape, None, options, 8) or positions > most_positions(shape, options.positions)


def test_methods_and_settings_count() -> None:
    def seconds(options: FastFinetune, bits: int = 8) -> float:
        return expected_seconds((1, 128, 256), 50_000, options, bits)

    plain, searched = seconds(Nearest(scale_search=False)), seconds(Nearest())
    assert plain < searched < seconds(ROUND) < seconds(replace(ROUND, num_iterations=1000))
    assert seconds(replace(ROUND, positions=5000)) < seconds(ROUND)
    assert seconds(AdaRound()) == seconds(Nearest()) < seconds(AdaRound(), bits=4)  # iterations are for coarse codes


def test_all_roundings_of_a_few_inputs_are_tried_and_none_is_learned() -> None:
    few, more = (
        [
            expected_seconds(
                (
                    64,
                    1,
                    k,
                ),
                2000,
                AdaRound(),
                bits,
            )
            for bits in (4, 8)
        ]
        for k in (9, 10)
    )
    assert few[0] == few[1]
    assert more[0] > more[1]


LAYERS = {
    "Conv": ("3, 9, 9", "Conv <strides = [2, 2]> (x, w)", (5, 3, 3, 3), (1, 5, 27), 16 * 7),
    "depthwise": ("4, 6, 6", "Conv <group = 4> (x, w)", (4, 1, 3, 3), (4, 1, 9), 16 * 7),
    "Gemm": ("6", "Gemm (x, w)", (6, 4), (1, 4, 6), 7),
    "MatMul": ("5, 6", "MatMul (x, w)", (6, 4), (1, 4, 6), 5 * 7),
    "MatMul from the left": ("6, 5", "MatMul (w, x)", (4, 6), (1, 4, 6), 5 * 7),
    "MatMul of any length": ("L, 6", "MatMul (x, w)", (6, 4), (1, 4, 6), None),
    "Conv of any size": ("3, H, 9", "Conv (x, w)", (5, 3, 3, 3), (1, 5, 27), None),
}


@pytest.mark.parametrize(("sample", "layer", "weight", "rows", "positions"), LAYERS.values(), ids=LAYERS)
def test_positions_of_a_layer(sample: str, layer: str, weight: Any, rows: Any, positions: int | None) -> None:
    text = f"g (float[N, {sample}] x) => (float[N] y) {{ [n] h = {layer} [r] y = Relu (h) }}"
    dims = [int(n) if n.isdecimal() else 9 for n in sample.split(", ")]
    made = case(text, draw((1, *dims), 3), {"w": normal(*weight)}, weight_type="int8")
    units, _ = match(made.model, made.plan, ["Conv", "Gemm", "MatMul"])
    assert units["n"].geometry.rows(normal(*weight)).shape == rows
    assert positions_of(units["n"], rows, 7) == positions


def test_a_fixed_batch_does_not_count_twice() -> None:
    text = "g (float[2, 3, 9, 9] x) => (float[2] y) { [n] h = Conv (x, w) [r] y = Relu (h) }"
    made = case(text, draw((2, 3, 9, 9), 3), {"w": normal(5, 3, 3, 3)}, weight_type="int8")
    units, _ = match(made.model, made.plan, ["Conv"])
    assert positions_of(units["n"], (1, 5, 27), 6) == 6 * 49
