"""The plan as a value: it survives its folder bit by bit, tells differences, and drops what cannot be quantized."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quark_onnx.core.atomic_files import new_folder
from quark_onnx.core.errors import ConfigError, PlanError, ResourceError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Coded, Plan, QParams, Site
from quark_onnx.core.plan_diff import diff

law = settings(deadline=None, max_examples=50)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
tensors = st.from_regex(r"/?[a-zäµ][a-z0-9_.:/ -]{0,12}", fullmatch=True)
formats = st.builds(Format, st.integers(2, 31), st.booleans(), st.booleans(), st.none() | st.integers(0, 3))
several_floats = arrays.arrays(
    np.float32,
    st.sampled_from([(), (2,), (3, 0), (1, 4)]),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def codes_of(format: Format, shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Any codes of the type, the lowest one of a strict grid included."""
    lowest = -(2 ** (format.bits - 1)) if format.signed else 0
    return arrays.arrays(np.int32, shape, elements=st.integers(lowest, lowest + 2**format.bits - 1))


def scales_of(format: Format) -> st.SearchStrategy[np.ndarray]:
    shape = () if format.axis is None else (3,)
    return arrays.arrays(np.float32, shape, elements=st.floats(2.0**-100, 2.0**100, width=32))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(tensors, unique=True, max_size=5))
    sites = {}
    of_group = {name: draw(formats) for name in names}
    for name in names:
        known = draw(st.none() | st.tuples(st.floats(-9, 0), st.floats(0, 9)))
        role = draw(st.sampled_from(["activation", "constant", "weight", "bias"]))
        factors = tuple(draw(st.lists(st.sampled_from(names), max_size=2)))
        group = draw(st.sampled_from(names))
        sites[name] = Site(name, role, of_group[group], group, draw(texts), factors, known)
    qparams = {}
    for site in sites.values():
        scale = draw(scales_of(site.format))
        qparams[site.group] = QParams(scale, draw(codes_of(site.format, scale.shape)))
    tuned = draw(st.lists(st.sampled_from(names), unique=True, max_size=2)) if names else []
    codes = {t: Coded(draw(codes_of(sites[t].format, (2, 3))), draw(scales_of(sites[t].format))) for t in tuned}
    nodes = st.dictionaries(texts, st.lists(st.sampled_from(names), max_size=3).map(tuple) if names else st.just(()))
    told = st.dictionaries(texts, texts, max_size=3)
    several = {
        name: st.dictionaries(tensors, several_floats, max_size=2)
        for name in ("factors", "shifts", "smoothed", "values")
    }
    more = draw(st.fixed_dictionaries(several))
    return Plan(draw(texts), sites, draw(nodes), draw(told), qparams, draw(told), codes=codes, **more)


def exact(value: object) -> object:
    """Something that is equal only for equal bits: arrays as type, shape and bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, QParams | Coded):
        return type(value), [exact(getattr(value, field.name)) for field in fields(value)]
    return value


def assert_equal(a: Plan, b: Plan) -> None:
    """Every field, and the order of sites and nodes, in which they are applied."""
    assert a.model == b.model
    assert list(a.sites) == list(b.sites)
    assert list(a.nodes) == list(b.nodes)
    for name in (field.name for field in fields(Plan) if field.name != "model"):
        one, other = ({key: exact(value) for key, value in getattr(plan, name).items()} for plan in (a, b))
        assert one == other


@law
@given(plans())
def test_save_and_load_is_the_same_plan(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    folder = tmp_path_factory.mktemp("plans") / "plan"
    assert plan.save(folder) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "plan.json"]
    loaded = Plan.load(folder)
    assert_equal(plan, loaded)
    assert diff(plan, loaded) == []


@law
@given(plans())
def test_copies_are_the_same_plan(plan: Plan) -> None:
    for twin in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert_equal(plan, twin)


def example() -> Plan:
    """x → Conv(w, b) → y → MaxPool → z: z follows y."""
    activation, weight = Format(8, True), Format(8, True, True, 0)
    sites = [
        Site("x", "activation", activation, "x", "layer"),
        Site("w", "weight", weight, "w", "layer"),
        Site("b", "bias", Format(32, True, True, 0), "b", "layer", ("x", "w")),
        Site("y", "activation", activation, "y", "layer"),
        Site("z", "activation", activation, "y", "same scale"),
    ]
    scales = {"x": 0.1, "w": [0.2, 0.3], "y": 0.4}
    qparams = {g: QParams(np.array(s, np.float32), np.zeros(np.shape(s), np.int32)) for g, s in scales.items()}
    nodes = {"conv": ("x", "w", "b", "y"), "pool": ("y", "z")}
    return Plan("f00d", {site.tensor: site for site in sites}, nodes, {"other": "unknown"}, qparams, {"w": "raised"})


def test_constants_come_in_the_order_in_which_they_were_found(tmp_path: Path) -> None:
    """The model gets them in that order: another one would be other bytes."""
    names = ("late", "early", "middle")
    arrays = dict.fromkeys(names, np.ones(2, np.float32))
    loaded = Plan.load(replace(example(), factors=arrays, shifts=arrays, smoothed=arrays).save(tmp_path / "plan"))
    assert [tuple(kept) for kept in (loaded.factors, loaded.shifts, loaded.smoothed)] == [names] * 3


def test_names_that_look_like_files(tmp_path: Path) -> None:
    """`np.load` takes `x.npy` for `x`, where both are in a file."""
    sites = {name: replace(example().sites["x"], tensor=name, group=name) for name in ("x", "x.npy", "../x", "/x")}
    qparams = {name: QParams(np.array(i + 1, np.float32), np.array(0, np.int32)) for i, name in enumerate(sites)}
    plan = Plan("f00d", sites, qparams=qparams)
    assert_equal(Plan.load(plan.save(tmp_path / "plan")), plan)


def test_a_plan_cannot_be_changed() -> None:
    plan = example()
    for mapping in (getattr(plan, field.name) for field in fields(Plan) if field.name != "model"):
        for change in (mapping.clear, mapping.popitem, lambda m=mapping: m.update(a=1)):  # type: ignore[attr-defined]
            with pytest.raises(TypeError, match="read-only"):
                change()
    with pytest.raises(TypeError, match="read-only"):
        plan.notes["conv"] = "no"  # type: ignore[index]
    assert_equal(plan, example())


def test_without_a_group_its_nodes_stay_float() -> None:
    plan = example().without({"y": "a mask"})
    assert (dict(plan.sites), dict(plan.nodes), dict(plan.qparams)) == ({}, {}, {})
    assert plan.notes == {"other": "unknown", "conv": "a mask", "pool": "a mask"}


def test_without_keeps_what_others_need() -> None:
    plan = example().without({"w": "not finite"})
    assert plan.nodes == {"pool": ("y", "z")}
    assert list(plan.sites) == ["y", "z"]
    assert list(plan.qparams) == ["y"]
    assert plan.notes == {"other": "unknown", "conv": "not finite"}


def test_without_nothing_is_the_same_plan() -> None:
    assert_equal(example().without({}), example())
    assert_equal(example().without({"no such group": "?"}), example())


def test_diff_of_equal_plans_is_empty() -> None:
    assert diff(example(), example()) == []


def with_q(group: str, scale: Any, zero_point: Any = 0) -> Plan:
    q = QParams(np.array(scale, np.float32), np.array(zero_point, np.int32))
    return replace(example(), qparams={**example().qparams, group: q})


DIFFERENT = [
    (replace(example(), model="beef"), ["model: f00d → beef"]),
    (replace(example(), nodes={"conv": example().nodes["conv"]}), ["− nodes pool"]),
    (replace(example(), notes={**example().notes, "new": "why"}), ["+ notes new: why"]),
    (replace(example(), remarks={"w": "lowered"}), ["~ remarks w: raised → lowered"]),
    (with_q("x", 0.5), ["~ qparams x: scale 0.1 zero_point 0 → scale 0.5 zero_point 0"]),
    (with_q("x", 0.1, 3), ["~ qparams x: scale 0.1 zero_point 0 → scale 0.1 zero_point 3"]),
    (with_q("w", [0.2, 0.5], [0, 0]), ["~ qparams w: 2 scales 0.2..0.3 → 2 scales 0.2..0.5"]),
    (with_q("v", 0.5), ["+ qparams v: scale 0.5 zero_point 0"]),
    (
        replace(example(), qparams={}),
        [
            "− qparams x: scale 0.1 zero_point 0",
            "− qparams w: 2 scales 0.2..0.3",
            "− qparams y: scale 0.4 zero_point 0",
        ],
    ),
    (
        replace(example(), sites={**example().sites, "z": replace(example().sites["z"], group="z")}),
        [f"~ sites z: {example().sites['z']} → {replace(example().sites['z'], group='z')}"],
    ),
]


@pytest.mark.parametrize("field", ["factors", "shifts", "smoothed", "values", "codes"])
def test_diff_sees_every_array(field: str) -> None:
    """One number of one array, in each field that holds arrays."""

    def plan(number: int) -> Plan:
        array = np.array([1, number, 3], np.int32)
        return replace(example(), **{field: {"w": Coded(array, np.float32([1])) if field == "codes" else array}})

    assert diff(plan(2), plan(2)) == []
    (line,) = diff(plan(2), plan(0))
    assert line.startswith(f"~ {field} w: ")
    gone_and_new = [*diff(plan(2), example()), *diff(example(), plan(2))]
    assert [line.partition(":")[0] for line in gone_and_new] == [f"− {field} w", f"+ {field} w"]


@pytest.mark.parametrize(("other", "lines"), DIFFERENT)
def test_diff_tells_every_difference(other: Plan, lines: list[str]) -> None:
    assert diff(example(), other) == lines


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "plan.json").read_text(encoding="utf-8"))


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = document(folder)
        change(values)
        (folder / "plan.json").write_text(json.dumps(values), encoding="utf-8")

    return edit


def cut(folder: Path) -> None:
    data = (folder / "arrays.npz").read_bytes()
    (folder / "arrays.npz").write_bytes(data[: len(data) // 2])


MALFORMED = {
    "no plan.json": lambda folder: (folder / "plan.json").unlink(),
    "no arrays.npz": lambda folder: (folder / "arrays.npz").unlink(),
    "empty plan.json": lambda folder: (folder / "plan.json").write_text(""),
    "not JSON": lambda folder: (folder / "plan.json").write_text("{"),
    "a list": lambda folder: (folder / "plan.json").write_text("[]"),
    "not text": lambda folder: (folder / "plan.json").write_bytes(b"\xff\xfe\xff"),
    "empty arrays.npz": lambda folder: (folder / "arrays.npz").write_bytes(b""),
    "arrays.npz is text": lambda folder: (folder / "arrays.npz").write_text("hello"),
    "arrays.npz is cut": cut,
    "arrays.npz is a broken zip": lambda folder: (folder / "arrays.npz").write_bytes(b"PK\x03\x04 and no more"),
    "arrays.npz without zero points": lambda folder: np.savez(
        folder / "arrays.npz", **{"qparams/x/scale": np.float32(1)}
    ),
    "another version": edited(lambda values: values.update(version=2)),
    "no version": edited(lambda values: values.pop("version")),
    "no model": edited(lambda values: values.pop("model")),
    "no notes": edited(lambda values: values.pop("notes")),
    "sites is a number": edited(lambda values: values.update(sites=3)),
    "nodes is a list": edited(lambda values: values.update(nodes=["conv"])),
    "unknown field of a site": edited(lambda values: values["sites"][0].update(scale=1)),
    "missing field of a site": edited(lambda values: values["sites"][0].pop("group")),
    "unknown field of a format": edited(lambda values: values["sites"][0]["format"].update(width=8)),
    "unknown role": edited(lambda values: values["sites"][0].update(role="activaton")),
    "unknown width": edited(lambda values: values["sites"][0]["format"].update(bits=64)),
    "width is text": edited(lambda values: values["sites"][0]["format"].update(bits="8")),
    "node without sites": edited(lambda values: values["nodes"].update(conv=["nowhere"])),
    "node is text": edited(lambda values: values["nodes"].update(conv="xw")),
    "bias of an unknown weight": edited(lambda values: values["sites"][2].update(factors=["x", "nowhere"])),
}


@pytest.mark.parametrize("spoil", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_folder_is_a_plan_error_that_names_it(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    folder = example().save(tmp_path / "plan")
    assert_equal(Plan.load(folder), example())
    spoil(folder)
    with pytest.raises(PlanError, match=str(folder)):
        Plan.load(folder)


def test_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no plan in .*plan\.json is missing; make one with `quark-onnx plan`"):
        Plan.load(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PlanError, match="file"):
        Plan.load(tmp_path / "file")


def test_json_is_plain_and_readable(tmp_path: Path) -> None:
    values = document(example().save(tmp_path / "plan"))
    assert list(values) == ["version", "model", "sites", "nodes", "notes", "remarks"]
    assert values["sites"][2] == json.loads(json.dumps(asdict(example().sites["b"])))
    assert values["nodes"]["pool"] == ["y", "z"]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = example().save(tmp_path / "deep" / "er" / "plan")
    (folder / "config.json").write_text("of the old plan")
    other = with_q("x", 0.5)
    other.save(folder)
    assert_equal(Plan.load(folder), other)
    assert sorted(tree(folder)) == ["arrays.npz", "plan.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["plan"]
    other.save(folder, "{}")
    assert (folder / "config.json").read_text() == "{}\n"


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    folder = example().save(tmp_path / "plan")
    (folder / "notes.txt").write_text("of mine")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"also holds 'notes.txt', which would be lost"):
        example().save(folder)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["folder", "empty", "file"])
def test_something_else_is_never_overwritten(name: str, tmp_path: Path) -> None:
    for folder in ("folder", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=f"{name} exists and holds no plan.json"):
        example().save(tmp_path / name)
    assert tree(tmp_path) == before
    assert (tmp_path / "empty").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot write"):
        example().save(tmp_path / "file" / "plan")


def test_a_half_written_folder_is_never_seen(tmp_path: Path) -> None:
    target = tmp_path / "plan"
    with pytest.raises(KeyError), new_folder(target, ("plan.json",)) as temporary:
        (temporary / "plan.json").write_text("{}")
        assert not target.exists()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_plan_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = example().save(tmp_path / "plan")
    before = tree(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ResourceError, match=r"the disk is full for .*plan .*No space left on device"):
        with_q("x", 0.5).save(folder)
    assert tree(tmp_path) == before


def test_the_folder_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    folder = example().save(tmp_path / "plan")
    assert stat.S_IMODE(os.stat(folder).st_mode) == stat.S_IMODE(os.stat(tmp_path / "plain").st_mode)
