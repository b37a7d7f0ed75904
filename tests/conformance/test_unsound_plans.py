"""Plans are checked as input: a number that no plan may have is a PlanError that names its entry, on every way in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done, fails
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, Plan, PlanError, get_default_config
from quark_onnx.cli.exit_codes import EXIT_CODES
from quark_onnx.core.plan import Coded

TEXT = """g (float[1,3,8,8] x) => (float[1,4,4,4] y) {
    h = Conv (x, w, b) r = Relu (h) y = Conv (r, v, c)
}"""
WEIGHTS = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(4, 4, 3, 3, seed=1), "c": normal(4, seed=1)}
FEEDS = [{"x": normal(1, 3, 8, 8, seed=seed)} for seed in range(4)]
NAN, INF = np.float32(np.nan), np.float32(np.inf)

Arrays = dict[str, Any]


CONFIGS = {
    "equalized": replace(get_default_config("S8S8_AAWS"), per_channel=False, include_cle=True),
    "channels": replace(get_default_config("S8S8_AAWS"), per_channel=True),
    "powers": get_default_config("XINT8"),
}


def tuned(plan: Plan) -> Plan:
    """The plan with integers for a weight and numbers for a bias, as fine-tuning leaves them."""
    codes = Coded(np.ones((4, 3, 3, 3), np.int32), plan.qparams["w"].scale)
    return replace(plan, codes={"w": codes}, values={"b": np.ones(4, np.float32)})


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model and a sound plan of it for each configuration, with tuned integers and biases."""
    root = tmp_path_factory.mktemp("plans")
    onnx.save(text_model(TEXT, **WEIGHTS), root / "m.onnx")
    for name, config in CONFIGS.items():
        made = ModelQuantizer(config).quantize_model(root / "m.onnx", None, FEEDS).plan
        tuned(made).save(root / name, config.to_json())
    return {name: root / name for name in CONFIGS}


def stored(folder: Path) -> Arrays:
    with np.load(folder / "arrays.npz") as arrays:
        return dict(arrays)


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, key: np.asarray(change(arrays[key]))}


def at_first(value: Any) -> Callable[[Any], Any]:
    """An array with another first number."""

    def change(array: Any) -> Any:
        found = np.array(array)
        found.reshape(-1)[0] = value
        return found

    return change


X, W, CODES, SCALE = "qparams/x/scale", "qparams/w/scale", "codes/w/codes", "codes/w/scale"
UNSOUND: dict[str, tuple[str, Callable[[Arrays], Arrays], str]] = {
    "NaN scale": ("channels", changed(X, at_first(NAN)), r"qparams of 'x': its scale .*nan; it must be finite"),
    "infinite scale": ("channels", changed(X, at_first(INF)), "qparams of 'x': its scale .*inf"),
    "zero scale": ("channels", changed(X, at_first(0)), r"qparams of 'x': its scale .*0\.0; it must be above 0"),
    "negative scale": ("channels", changed(X, np.negative), "qparams of 'x': .* must be above 0"),
    "one negative scale": ("channels", changed(W, at_first(-1)), "qparams of 'w': .* must be above 0"),
    "integer scale": ("channels", changed(X, np.int32), "qparams of 'x': its scale has the type int32"),
    "no power of two": ("powers", changed(X, lambda s: np.float32(s * 1.5)), "qparams of 'x': .* a power of two"),
    "zero point 1e9": ("channels", changed("qparams/x/zero_point", at_first(10**9)), "'x': its zero point .*0..255"),
    "zero point 256": ("channels", changed("qparams/x/zero_point", at_first(256)), "qparams of 'x': its zero point"),
    "float zero point": (
        "channels",
        changed("qparams/x/zero_point", np.float32),
        "its zero point has the type float32",
    ),
    "codes 1e9": ("channels", changed(CODES, at_first(10**9)), r"codes of 'w': its codes .* int8 has -128\.\.127"),
    "codes -129": ("equalized", changed(CODES, at_first(-129)), "codes of 'w': its codes"),
    "float codes": ("channels", changed(CODES, np.float32), "codes of 'w': its codes have the type float32"),
    "NaN scale of codes": ("channels", changed(SCALE, at_first(NAN)), "codes of 'w': its scale"),
    "NaN bias": ("channels", changed("values/b/", at_first(NAN)), "values of 'b': it has the value nan"),
    "infinite factor": ("equalized", changed("factors/w/", at_first(INF)), "factors of 'w'"),
    "text": ("channels", changed(X, lambda s: np.array("0.1")), "qparams of 'x': its scale has the type <U3"),
    "three scales": ("channels", changed(X, lambda s: np.full(3, s)), "qparams of 'x': its scale has the shape"),
    "a row of scales": ("channels", changed(W, lambda s: s[None]), "qparams of 'w': its scale has the shape"),
}
MISFIT: dict[str, tuple[str, Callable[[Arrays], Arrays], str]] = {  # only the model tells
    "a scale too few": (
        "channels",
        changed(SCALE, lambda scale: scale[:3]),
        r"codes of 'w': its scale has the shape \(3,\), the tensor needs \(4,\)",
    ),
    "codes of another shape": (
        "equalized",
        changed(CODES, lambda codes: codes[:, :2]),
        r"codes of 'w': they have the shape \(4, 2, 3, 3\), the tensor has \(4, 3, 3, 3\)",
    ),
    "a bias too short": (
        "equalized",
        changed("values/b/", lambda b: b[:3]),
        r"values of 'b': they have the shape \(3,\)",
    ),
    "a bias of another model": (
        "channels",
        lambda arrays: {**arrays, "values/nowhere/": arrays["values/b/"]},
        "values of 'nowhere': the model has no such initializer",
    ),
    "factors too short": ("equalized", changed("factors/w/", lambda f: f[:2].reshape(-1)[:5]), "rescales what"),
}


def spoiled(sound: Path, folder: Path, spoil: Callable[[Arrays], Arrays]) -> Path:
    shutil.copytree(sound, folder)
    np.savez(folder / "arrays.npz", **spoil(stored(folder)))
    return folder


def resume(plans: Mapping[str, Path], name: str, plan: object) -> None:
    model = plans[name].parent / "m.onnx"
    ModelQuantizer(CONFIGS[name]).quantize_model(model, None, FEEDS, resume=plan)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [*UNSOUND, *MISFIT])
def test_every_way_in_refuses_it(case: str, plans: dict[str, Path], tmp_path: Path) -> None:
    name, spoil, says = (UNSOUND | MISFIT)[case]
    folder = spoiled(plans[name], tmp_path / "plan", spoil)
    with pytest.raises(PlanError, match=says):
        resume(plans, name, folder)
    out = tmp_path / "o.onnx"
    said = fails(EXIT_CODES[PlanError], "apply", plans[name].parent / "m.onnx", folder, "-o", out)
    assert says.split(":")[0].split(" .*")[0] in said
    assert not out.exists()
    if case in UNSOUND:  # nobody gets such a plan at all
        with pytest.raises(PlanError, match=str(folder)):
            Plan.load(folder)


@pytest.mark.parametrize("name", CONFIGS)
def test_sound_plans_pass(name: str, plans: dict[str, Path], tmp_path: Path) -> None:
    resume(plans, name, plans[name])
    done("apply", plans[name].parent / "m.onnx", plans[name], "-o", tmp_path / "o.onnx")
    assert {"equalized": "factors/w/", "channels": SCALE, "powers": X}[name] in stored(plans[name])


def test_the_lowest_code_of_a_strict_grid_is_a_code_of_its_type(plans: dict[str, Path], tmp_path: Path) -> None:
    assert Plan.load(plans["channels"]).sites["w"].format.lo == -127
    resume(plans, "channels", spoiled(plans["channels"], tmp_path / "plan", changed(CODES, at_first(-128))))


def test_a_plan_that_was_changed_in_memory(plans: dict[str, Path]) -> None:
    plan = Plan.load(plans["channels"])
    bad = replace(plan, qparams={**plan.qparams, "x": replace(plan.qparams["x"], scale=NAN)})
    with pytest.raises(PlanError, match="the plan to resume, qparams of 'x': its scale"):
        resume(plans, "channels", bad)


SITES: dict[str, tuple[dict[str, Any], str]] = {
    "range upside down": ({"range": [1.0, -1.0]}, "the range"),
    "range of NaN": ({"range": [float("nan"), 1.0]}, "the range"),
    "range of one end": ({"range": [1.0]}, "a range of 1 ends"),
    "range of unequal rows": ({"range": [[0.0], [1.0, 2.0]]}, "the range"),
    "range beyond floats": ({"range": [0, 10**400]}, "the range"),
    "low end of NaN": ({"low": float("nan")}, "the lower end nan"),
    "floor of NaN": ({"floor": float("nan")}, "the lower end nan"),
    "half an axis": ({"axis": 0.5}, "axis 0.5"),
    "negative axis": ({"axis": -1}, "axis -1"),
    "blocks without an axis": ({"block": 4, "axis": None}, "blocks of 4"),
    "empty blocks": ({"block": 0, "axis": 0}, "blocks of 0"),
    "a flag in words": ({"signed": "yes"}, "neither true nor false"),
    "strict in words": ({"strict": "yes"}, "strict 'yes'"),
    "unknown scales": ({"scale": "log"}, "scales of the kind 'log'"),
    "stored too narrow": ({"stored": 4}, "8 bits stored in 4"),
    "stored in 7": ({"stored": 7}, "8 bits stored in 7"),
    "pairs without an order": ({"safe_pairs": True}, "safe pairs of the kind True"),
}


@pytest.mark.parametrize("case", SITES)
def test_sites_are_checked(case: str, plans: dict[str, Path], tmp_path: Path) -> None:
    change, says = SITES[case]
    folder = Path(shutil.copytree(plans["channels"], tmp_path / "plan"))
    document = json.loads((folder / "plan.json").read_text("utf-8"))
    site = next(site for site in document["sites"] if site["tensor"] == "w")
    for key, value in change.items():
        (site if key in site else site["format"])[key] = value
    (folder / "plan.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(PlanError, match=f"site 'w' has .*{says}"):
        Plan.load(folder)


ELSEWHERE: dict[str, tuple[dict[str, Any], str]] = {
    "an axis that the weight has not": ({"axis": 4}, r"axis 4 of 'w', whose shape is \[4, 3, 3, 3\]"),
    "an axis of other size": ({"axis": 1}, "'w': its scale has the shape"),
    "an activation for a weight": ({"tensor": "h", "group": "w"}, "'h' for a weight"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_formats_are_held_against_the_model(case: str, plans: dict[str, Path]) -> None:
    change, says = ELSEWHERE[case]
    plan = Plan.load(plans["channels"])
    site = plan.sites["w"]
    formats = {key: value for key, value in change.items() if key == "axis"}
    names = {key: value for key, value in change.items() if key != "axis"}
    site = replace(site, format=replace(site.format, **formats), **names)
    with pytest.raises(PlanError, match=says):
        resume(plans, "channels", replace(plan, sites={**plan.sites, site.tensor: site}))


def test_two_sites_of_a_tensor(plans: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plans["channels"], tmp_path / "plan"))
    document = json.loads((folder / "plan.json").read_text("utf-8"))
    document["sites"].append(document["sites"][0])
    (folder / "plan.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(PlanError, match="a tensor has two sites"):
        Plan.load(folder)
