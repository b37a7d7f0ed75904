"""The page of a search: every figure of it is there, the chart shows every point, and nothing that a name could do."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from html_pages import HOSTILE, safe
from made_up_searches import mobilenet, point, row, searched

from quark_onnx.core.json_writing import plain
from quark_onnx.optimize.records import LayerOption, Optimized
from quark_onnx.report import search_wording as words
from quark_onnx.report.optimize_page import charts, search_page, write_search
from quark_onnx.report.pareto_chart import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axis, Label, Tried, front, pareto

COST, DAMAGE = Axis("Size, kB", 1e3), Axis("KL divergence", log=True)


# what is on the page


def test_every_fact_of_a_search_is_on_its_page() -> None:
    page = safe(search_page(mobilenet(), "small.onnx", "report.json"))
    for fact in (
        "small.onnx As small as can be, with a KL divergence of at most 0.1 · quark_onnx",
        "Budget met a KL divergence of at most 0.1",
        "Size 318 kB 17% of 1.92 MB",
        "Time, estimated 0.32 × that of the float model",
        "KL divergence 0.094 same arg-max 97.65%",
        "SQNR of the worst output 12.3 dB poor",
        "On integers 97% of the multiply-adds",
        "Tried 7 points in 31.4 s",
        "Point 6, 4 bits in 20 of 28 layers , was written: the smallest of 6 points that is within the budget.",
        "KL 0.281: --max-kl 0.284",
        "1 int8 per tensor 541 kB 0.54 × 1.92 – 52.00% 8.7 dB 97% KL 1.92, and may be 0.1 5.2 s",
        "3 biases corrected on the line 544 kB 0.54 × 0.0361 – 99.10% 12.4 dB 97% within 5.2 s",
        "6 4 bits in 20 of 28 layers chosen 318 kB 0.32 × 0.094 0.0951 97.65% 12.3 dB 97% within 5.2 s",
        "7 4 bits everywhere – – – – – – – no model: the model has no weights 5.2 s",
        "w4 : weights alone, in 4 bits",
        "1 features.0.conv Conv 2,000 1.02 kB chosen 0.0123 2.05 kB 0.00045 8.19 kB 0",
        "150 taught, 50 others judged",
        "few samples",
        "weight_type int8",
    ):
        assert fact in page.text, fact
    assert page.tags["svg"] == 2 + 4  # against size and time; signs of the legend
    assert "./report.json" in page.links
    assert "NOT met" not in page.text and "What stood in the way" not in page.text


def test_a_budget_that_is_missed_says_so_and_why() -> None:
    found = replace(mobilenet(), met=False, chosen=2, reason="it is nearest", blame=("`head` takes most of it.",))
    page = safe(search_page(found))
    assert "Budget NOT met" in page.text and "The budget is not met." in page.text
    assert "What stood in the way head takes most of it." in page.text


def test_a_score_is_told_with_its_noise() -> None:
    scored = point(1, 500_000, 0.02, score=0.5812, drop=0.0098, noise=0.0041, latency=(2.13, 1.07))
    page = safe(search_page(searched([scored], 1, budget={"max_drop": 0.02}, float_score=0.591)))
    assert "Score 0.5812 float 0.591, 0.0098 ± 0.0041 lower" in page.text
    assert "Latency 1.07 ms in kernels, on this machine; float 2.13 ms" in page.text
    assert "a score at most 0.02 below that of the float model" in page.text


def test_without_a_budget_it_is_the_knee() -> None:
    found = searched([point(1, 500_000, 0.02), point(2, 400_000, 0.05)], 1, budget={}, reason="the knee")
    page = safe(search_page(found))
    assert "Budget none the best trade-off, the knee of the curve" in page.text
    assert "within" not in page.text and "over the" not in page.text


LOST = point(2, 400_000, math.inf, kl=None, sqnr=-math.inf, agreement=None, predicted=math.inf, name="")
EXACT = point(1, 500_000, 0.0, kl=None, sqnr=math.inf, agreement=None)
UNKNOWN = point(3, 450_000, None)
ONE = searched([UNKNOWN], 3, measure="noise", budget={"min_sqnr": 20.0}, float_size=0, samples=(0, 0), reason="")


@pytest.mark.parametrize(
    "found",
    [
        ONE,
        searched([EXACT, LOST, UNKNOWN], 1, measure="noise", budget={"min_sqnr": 20.0}, objective="balanced"),
        searched([EXACT], 1, measure="noise", budget={}, rows=(replace(row("x"), options=(), chosen=""), row("y"))),
        searched([LOST], 2, met=False, rows=(replace(row("x"), options=(LayerOption("w4/32", math.inf, 0, 0.0),)),)),
        searched([replace(UNKNOWN, error="no samples", time=0.0, size=0)], 3, met=False),
    ],
    ids=["one without figures", "infinite", "exact", "lost", "nothing came out"],
)
def test_what_is_missing_or_infinite_leaves_no_trace(found: Optimized) -> None:
    text = search_page(found)
    page = safe(text)
    assert not re.search(r"<(tbody|ul|dl|p|figure)[^>]*>\s*</\1>", text)
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", page.text)
    assert not re.search(r'"(nan|-?inf)"', text)
    for name in re.findall(r'<h2 id="(\w+)">', text):
        assert f'href="#{name}"' in text


def test_a_hostile_name_is_text_wherever_it_stands() -> None:
    def hostile(name: str) -> Optimized:
        points = [replace(p, name=name, over=(name,), error=name if p.number == 7 else "") for p in mobilenet().points]
        rows = (replace(row(name), op_type=name, chosen=name, options=(LayerOption(name, 0.1, 1, 1.0),)),)
        said = {"reason": name, "blame": (name,), "advice": (name,), "warnings": (name,), "stopped": name}
        return replace(mobilenet(), points=tuple(points), rows=rows, output=Path(f"{name}.onnx"), **said)

    page = safe(search_page(hostile(HOSTILE), HOSTILE, f"{HOSTILE}.json"))
    clean = safe(search_page(hostile("x"), "x", "x.json"))
    assert {**page.tags, "code": 0} == {**clean.tags, "code": 0}
    assert page.text.count(HOSTILE[:20]) > 20


def test_the_file_and_its_json(tmp_path: Path) -> None:
    path = write_search(mobilenet(), tmp_path / "new" / "search.html", "m")
    assert sorted(file.name for file in path.parent.iterdir()) == ["search.html", "search.json"]
    found = json.loads((path.parent / "search.json").read_text("utf-8"))
    assert found == plain(mobilenet().to_dict()) and found["front"] == [4, 6, 5, 3]


# charts


def test_the_chart_follows_the_budget() -> None:
    """What the budget is about stands on the axis, with its limit; all else is a further chart."""
    names = [(chart.y.name, chart.x.name.split(",")[0], chart.limit is not None) for chart in charts(mobilenet())]
    assert names == [("KL divergence", "Size", True), ("KL divergence", "Estimated time", True)]

    scored = [replace(p, drop=0.01 * p.number) for p in mobilenet().points]
    both = replace(mobilenet(), points=tuple(scored), budget={"max_kl": 0.1, "max_drop": 0.02}, objective="latency")
    names = [(chart.y.name, chart.x.name.split(",")[0], chart.limit is not None) for chart in charts(both)]
    assert names == [
        ("Score lost", "Estimated time", True),
        ("Score lost", "Size", True),
        ("KL divergence", "Estimated time", True),
    ]

    knee = charts(replace(mobilenet(), budget={}))
    assert [chart.limit for chart in knee] == [None, None]
    unscored = charts(replace(mobilenet(), budget={"max_drop": 0.02}))  # the evaluator was never asked
    assert [chart.y.name for chart in unscored] == ["KL divergence"] * 2


def test_time_is_that_of_kernels_where_all_points_have_it() -> None:
    clocked = [replace(p, latency=None if p.error else (2.0, 1 + p.number / 10)) for p in mobilenet().points]
    chart = charts(replace(mobilenet(), points=tuple(clocked), objective="latency"))[0]
    assert chart.x.name == "Time in kernels on this machine, ms"
    assert {dot.tried.number: dot.tried.x for dot in chart.dots} == {
        p.number: p.latency[1] for p in clocked if p.latency
    }
    clocked[1] = replace(clocked[1], latency=None)
    chart = charts(replace(mobilenet(), points=tuple(clocked), objective="latency"))[0]
    assert chart.x.name == "Estimated time, of the float model's" and len(chart.dots) == 6


def test_a_share_of_the_score_is_a_limit_where_the_score_is_known() -> None:
    points = [replace(p, drop=0.01 * p.number) for p in mobilenet().points]
    share = replace(mobilenet(), points=tuple(points), budget={"max_drop": "5%"}, float_score=0.5)
    chart, plain = charts(share)[0], charts(replace(share, budget={"max_drop": 0.025}))[0]
    assert chart.limit == plain.limit is not None
    assert "≤ 5%" in [label.text for label in chart.labels]
    assert charts(replace(share, float_score=None))[0].limit is None


@pytest.mark.parametrize(("key", "limit"), [("min_sqnr", 12.3), ("min_agreement", 0.98), ("max_kl", 0.07)])
def test_the_limit_parts_points_within_from_points_over(key: str, limit: float) -> None:
    chart = charts(replace(mobilenet(), budget={key: limit}))[0]
    assert chart.limit is not None
    below = {dot.tried.number for dot in chart.dots if dot.y > chart.limit}
    worth = {"min_sqnr": lambda p: p.sqnr > limit, "min_agreement": lambda p: p.agreement > limit}
    better = worth.get(key, lambda p: p.kl < limit)
    assert below == {p.number for p in mobilenet().points if not p.error and better(p)}


def test_the_front_of_the_chart_is_that_of_the_search() -> None:
    found = mobilenet()
    assert front([(float(p.size), p.kl) for p in found.points if p.kl is not None]) == [
        (float(p.size), p.kl) for p in found.front
    ]
    chart = charts(found)[0]
    places = {dot.tried.number: f"{dot.x},{dot.y}" for dot in chart.dots}
    assert chart.line == " ".join(places[p.number] for p in found.front)
    assert [dot.tried.number for dot in chart.dots if dot.tried.chosen] == [6]
    assert chart.dots[-1].tried.chosen  # nothing covers it


def test_points_over_the_budget_are_hollow_and_the_chosen_one_has_a_ring() -> None:
    found = mobilenet()
    classes = Counter(value for name, value in safe(search_page(found)).attributes if name == "class")
    over = sum(bool(p.over) for p in found.points)
    within = sum(p.good for p in found.points)
    assert [classes[name] for name in ("over", "dot", "pick")] == [2 * over + 1, 2 * within + 1, 2 + 1]  # the legend


def test_an_axis_is_logarithmic_only_where_values_span_a_decade() -> None:
    def ticks(*damages: float) -> list[str]:
        chart = pareto([Tried(i, 1e5 + i, damage, "") for i, damage in enumerate(damages)], COST, DAMAGE)
        assert chart is not None
        return [tick.text for tick in chart.y_ticks]

    assert ticks(0.011, 0.09) == ["0.00", "0.02", "0.04", "0.06", "0.08"]
    assert ticks(0.011, 0.3) == ["0.01", "0.02", "0.05", "0.1", "0.2"]
    assert ticks(1e-5, 0.3) == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert len(ticks(1e-30, 1.0)) <= 6


def test_what_an_axis_cannot_hold_lies_on_its_edge() -> None:
    damages = [0.0, 0.001, 0.1, math.inf, math.nan]
    chart = pareto([Tried(i, 1e5 + i, damage, "") for i, damage in enumerate(damages)], COST, DAMAGE)
    assert chart is not None
    assert [dot.y for dot in chart.dots][::3] == [BOTTOM, TOP]
    assert len(chart.dots) == 4
    assert pareto([Tried(1, 1e5, math.nan, "")], COST, DAMAGE) is None
    assert pareto([], COST, DAMAGE) is None


@pytest.mark.parametrize("count", [1, 2, 9, 60])
@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.3])
def test_texts_cover_neither_each_other_nor_points(count: int, spread: float) -> None:
    tried = [
        Tried(i + 1, 3e5 * (1 + spread * (i * 7 % count)), 0.02 * (1 + 5 * spread * (i * 5 % count)), "", chosen=i == 0)
        for i in range(count)
    ]
    chart = pareto(tried, COST, DAMAGE, (0.03, "≤ 0.03"))
    assert chart is not None
    for one, other in combinations(chart.labels, 2):
        assert not _meet(one.box, other.box), (one, other)
    for label in chart.labels[1:]:  # the first is that of the limit, which has to be somewhere
        assert not [dot for dot in chart.dots if _meet(label.box, (dot.x - 5, dot.x + 5, dot.y - 5, dot.y + 5))]
        assert label.box[0] >= LEFT and label.box[1] <= WIDTH
    assert all(LEFT <= dot.x <= RIGHT and TOP <= dot.y <= BOTTOM for dot in chart.dots)
    texts = [tick.text for tick in chart.x_ticks]
    assert 0 < len(texts) <= 6 and len(texts) == len(set(texts))
    assert not [pair for pair in combinations(chart.x_ticks, 2) if _meet(pair[0].box, pair[1].box)]
    assert not [pair for pair in combinations(chart.y_ticks, 2) if _meet(pair[0].box, pair[1].box)]


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def test_the_box_of_a_text_is_where_it_stands() -> None:
    boxes = [Label(100, 50, "12", anchor).box[:2] for anchor in ("start", "middle", "end")]
    assert boxes == [(100, 118), (91, 109), (82, 100)]


# words


def test_budgets_and_verdicts_in_words() -> None:
    asked = {"max_drop": 0.01, "min_sqnr": 25.0, "min_agreement": 0.985, "max_kl": 0.05}
    assert words.budget_text(asked) == (
        "a score at most 0.01 below that of the float model and at least 25 dB at every output and the same arg-max on "
        "at least 98.5% of the samples and a KL divergence of at most 0.05"
    )
    assert words.budget_text({}) == "" and words.budget_text({"max_drop": "1%"}).startswith("a score at most 1% below")
    assert words.verdict(point(1, 1, 0.1)) == "within"
    assert words.verdict(point(1, 1, 0.1, over=("a", "b"))) == "a; b"
    assert words.agreement(0.99999) == "99.99%" and words.agreement(1.0) == "100%"  # only all of them are all
    assert words.drop(point(1, 1, 0.1, drop=-0.003)) == "0.003 higher"
    assert words.choice_text("w4/32") == "weights alone, in 4 bits, blocks of 32"
