"""Manifests of a zoo: every kind of problem is found, at its line and with all others; its good twin is none."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quark_onnx import ConfigError
from quark_onnx.cli import app
from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.settings.presets import DEFAULT
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.durations import seconds
from quark_onnx.zoo import ManifestError, check_zoo
from quark_onnx.zoo.entry import Entry
from quark_onnx.zoo.manifest import read_zoo, with_timeout
from quark_onnx.zoo.manifest_keys import number

JUDGE = "import math\nLOW, HIGH = 0, 1\n\ndef accuracy(model):\n    return 1.0\n\nloss = 2\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models, data and an evaluator; nobody reads what is in the models and the data."""
    for name in ("a.onnx", "b.onnx", "sub/a.onnx", "sub/deep/c.onnx", "a.npz", "samples/x.npy", "note.txt"):
        (tmp_path / "zoo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "zoo" / name).touch()
    (tmp_path / "zoo" / "judge.py").write_text(JUDGE, encoding="utf-8")
    (tmp_path / "zoo" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "zoo"


def written(home: Path, text: str) -> Path:
    file = home / "zoo.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


def read(home: Path, text: str, **how: Any) -> list[Entry]:
    return read_zoo(written(home, text), home.parent / "out", **how)


def problems(home: Path, text: str, **how: Any) -> list[str]:
    """All of them, each as `LINE: TEXT`."""
    with pytest.raises(ManifestError) as caught:
        read(home, text, **how)
    return [f"{problem.place.rpartition(':')[2]}: {problem.text}" for problem in caught.value.problems]


ENTRY = """\
models:
  - input: a.onnx
    data: samples/
    {}
"""
TOP = "models: [{{input: a.onnx, data: random}}]\n{}"
KINDS = {  # where the line stands; the line; what is said of it; a line that is fine
    "key": (ENTRY, "presets: S8S8_AAWS", "unknown key 'presets' in a model; did you mean 'preset'?", "preset: A8W8"),
    "top key": (TOP, "default: {}", "unknown key 'default' in the manifest; did you mean 'defaults'?", "defaults: {}"),
    "default": (TOP, "defaults: {input: b.onnx}", "unknown key 'input' in defaults", "defaults: {samples: 3}"),
    "defaults": (TOP, "defaults: 3", "defaults must be a mapping, not 3", "defaults: {preset: A8W8}"),
    "preset": (
        ENTRY,
        "preset: S8S8_AAWZ",
        "unknown preset 'S8S8_AAWZ'; did you mean 'S8S8_AAWS'?",
        "preset: S8S8_AAWS",
    ),
    "presets": (ENTRY, "preset: [A8W8, 3]", "preset must be the name of a preset, or a list", "preset: [A8W8, A16W8]"),
    "samples": (ENTRY, "samples: 0", "samples must be a positive integer, not 0", "samples: 1"),
    "samples, true": (ENTRY, "samples: yes", "samples must be a positive integer, not True", "samples: 20"),
    "images": (ENTRY, "images: {men: 1}", "unknown image option 'men'; did you mean 'mean'?", "images: {mean: 1}"),
    "images, kind": (ENTRY, "images: rgb", "images must be a mapping such as {mean: 0.5}", "images: {color: L}"),
    "target": (ENTRY, "target: cpuu", "target: unknown value 'cpuu'; did you mean 'cpu'?", "target: cpu"),
    "field": (ENTRY, "config: {perchannel: 1}", "did you mean 'per_channel'?", "config: {per_channel: true}"),
    "own field": (ENTRY, "config: {target: cpu}", "target is a key of its own, 'target'; move it out", "target: cpu"),
    "own options": (ENTRY, "config: {extra_options: {}}", "a key of its own, 'options'", "options: {}"),
    "value": (
        ENTRY,
        "config: {calibrate_method: Max}",
        "calibrate_method: unknown",
        "config: {calibrate_method: MinMax}",
    ),
    "option": (ENTRY, "options: {Percentil: 99}", "did you mean 'Percentile'?", "options: {Percentile: 99}"),
    "evaluator": (ENTRY, "evaluator: judge", "is neither module:function nor a command", "evaluator: 'judge:accuracy'"),
    "function": (ENTRY, "evaluator: 'judge:acuracy'", "did you mean 'accuracy'?", "evaluator: 'judge:loss'"),
    "module": (ENTRY, "evaluator: 'jury:f'", "there is no module 'jury'; put jury.py into", "evaluator: 'json:loads'"),
    "program": (ENTRY, "evaluator: jury {model}", "there is no program 'jury'", "evaluator: python judge.py {model}"),
    "quotes": (
        ENTRY,
        "evaluator: python ' {model}",
        "is not a command: No closing quotation",
        "evaluator: python {model}",
    ),
    "budget": (ENTRY, "budget: 20", "budget must be a mapping such as {max_drop: 0.01}", "budget: {min_sqnr: 20}"),
    "budget key": (ENTRY, "budget: {min_snr: 20}", "did you mean 'min_sqnr'?", "budget: {min_sqnr: 2e1}"),
    "budget value": (ENTRY, "budget: {min_sqnr: -1}", "min_sqnr must be decibels such as 25, not -1", "budget: {}"),
    "budget share": (
        ENTRY,
        "budget: {min_agreement: 98}",
        "must be a share such as 0.98",
        "budget: {min_agreement: 1}",
    ),
    "budget KL": (ENTRY, "budget: {max_kl: little}", "max_kl must be nats such as 0.05", "budget: {max_kl: 5e-2}"),
    "budget drop": (ENTRY, "budget: {max_drop: much}", "or a share such as 1%, not 'much'", "budget: {max_drop: null}"),
    "timeout": (ENTRY, "timeout: soon", "timeout must be seconds, or a text such as 30m or 2h", "timeout: 1.5h"),
    "timeout, none": (ENTRY, "timeout: 0", "timeout must be seconds", "timeout: 1"),
    "twice": (ENTRY, "data: a.npz", "key 'data' is given twice; remove one", "name: other"),
    "name": (ENTRY, "name: ../a", "'../a' cannot name a folder of outputs", "name: a b.c+d"),
    "name, hidden": (ENTRY, "name: .zoo", "'.zoo' cannot name a folder", "name: zoo"),
    "name, ours": (ENTRY, "name: results.jsonl", "cannot name a folder of outputs", "name: results"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_problem_and_its_twin(kind: str, home: Path) -> None:
    frame, bad, said, good = KINDS[kind]
    (found,) = problems(home, frame.format(bad))
    place = frame.splitlines().index("{}" if frame is TOP else "    {}") + 1 if frame is ENTRY else 2
    assert found.startswith(f"{2 if kind == 'twice' else place}: ")
    assert said in found
    assert len(read(home, frame.format(good))) == 1


def test_max_drop_needs_an_evaluator(home: Path) -> None:
    entry = "models:\n  - input: a.onnx\n    data: random\n    budget: {max_drop: 0.1}\n"
    assert problems(home, entry) == ["4: max_drop needs an evaluator to tell it; give one, or use min_sqnr"]
    (found,) = read(home, entry + "    evaluator: 'judge:accuracy'\n")
    assert found.budget == Budget(max_drop=0.1)
    (share,) = read(home, entry.replace("0.1", "1%") + "    evaluator: 'judge:accuracy'\n")
    assert share.budget == Budget(max_drop="1%")
    assert read(home, entry.replace("0.1", "null"))[0].budget == Budget()


def test_data(home: Path) -> None:
    def said(data: str) -> str:
        (found,) = problems(home, f"models:\n  - input: a.onnx\n    data: {data}\n")
        return found

    def path(data: str) -> str | None:
        (found,) = read(home, f"models:\n  - input: a.onnx\n    data: {data}\n")
        return found.data

    assert said("gone/").startswith("3: the calibration data ")
    assert "gone do not exist" in said("gone/")
    assert "note.txt are no folder, .npy or .npz file" in said("note.txt")
    assert said("3") == '3: data must be a folder, an .npz or .npy file, or "random", not 3'
    assert path("samples/") == str(home / "samples")
    assert path("samples/x.npy") == str(home / "samples" / "x.npy")
    assert path('"{stem}.npz"') == str(home / "a.npz")
    assert path("random") is None


def test_presets_that_need_data_and_presets_that_do_not(home: Path) -> None:
    text = "models:\n  - input: a.onnx\n    preset: {}\n"
    (found,) = problems(home, text.format("S8S8_AAWS"))
    assert found == "2: preset S8S8_AAWS needs calibration data; give data: PATH, or data: random for a trial"
    assert read(home, text.format("FP16"))[0].data is None


def test_models_that_are_not_there(home: Path) -> None:
    text = "defaults: {data: random}\nmodels:\n  - a.onnx\n  - gone.onnx\n"
    assert [entry.name for entry in read(home, text)] == ["a", "gone"]
    (found,) = problems(home, text, strict=True)
    assert found == f"4: model {home / 'gone.onnx'} does not exist; mend the path, or copy it there"
    assert len(read(home, text.replace("gone", "b"), strict=True)) == 2


def test_inputs_that_hold_no_model(home: Path) -> None:
    text = "defaults: {data: random}\nmodels:\n  - input: '%s'\n"
    for nothing in ("empty", "*.onx", "empty/**"):
        (found,) = problems(home, text % nothing)
        assert found == f"3: {nothing} holds no model; mend the path, or remove the entry"
    (home.parent / "out").mkdir()
    (home.parent / "out" / "x.onnx").touch()
    (found,) = problems(home, text % "../out")
    assert found.startswith(f"3: ../out holds no model outside of the output folder {home.parent / 'out'};")
    assert [entry.name for entry in read(home, text % "sub")] == ["a", "deep-c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: the manifest must be a mapping of defaults, models"),
        ("- a.onnx", "1: the manifest must be a mapping of defaults, models"),
        ("models: []", "1: models must be a list of entries, not []"),
        ("defaults: {}", "1: there are no models; write models: and below it - input: model.onnx"),
        ("models:\n  - 7", "2: a model must be a mapping of input, name, preset, objective, …"),
        ("models:\n  - {name: x, data: random}", "2: the entry has no input; give the path of a model, a folder"),
        ("models:\n  - {input: null, data: random}", "2: the entry has no input; give the path of a model, a folder"),
        ("models:\n  - {input: [a], data: random}", "2: input must be a path, a folder or a pattern such as"),
        ("models: [a\nb: c", "2: this is not YAML: while parsing a flow sequence; expected ',' or ']', but got ':'"),
        ("models:\n  - input: \x07", "2: this is not YAML: there is a character #x0007; remove it"),
        ("models: &all\n  - *all", "1: this value holds itself; remove the anchor"),
    ],
)
def test_manifests_that_are_none(text: str, said: str, home: Path) -> None:
    (found, *others) = problems(home, text)
    assert found.startswith(said)
    assert others == [] or "itself" in said


def test_names(home: Path) -> None:
    two = "defaults: {data: random%s}\nmodels:\n  - a.onnx\n  - sub/a.onnx\n"
    (found,) = problems(home, two % "")
    assert found.startswith("4: the outputs of sub/a.onnx would be named 'a', as those of a.onnx (")
    assert found.endswith("zoo.yaml:3); give each a name, such as name: '{parent}-{stem}'")
    assert [entry.name for entry in read(home, two % ", name: '{parent}-{stem}'")] == ["zoo-a", "sub-a"]
    upper = "defaults: {data: random}\nmodels:\n  - a.onnx\n  - {input: b.onnx, name: A}\n"
    assert "would be named 'A'" in problems(home, upper)[0]  # one folder on some file systems


def test_folders_of_others_are_spared(home: Path) -> None:
    text = "models: [{input: a.onnx, data: random}]"
    (home.parent / "out" / "a").mkdir(parents=True)
    (found,) = problems(home, text)
    assert found.endswith("exists and holds no result.json; choose another output folder or name")
    (home.parent / "out" / "a" / "result.json").touch()
    assert read(home, text)


def test_all_problems_at_once_in_the_order_of_the_lines(home: Path) -> None:
    """Also the same one of several entries only once, and nothing is started."""
    text = """\
        models:
          - {input: a.onnx, preset: A8W9}
          - input: b.onnx
            evaluator: "judge:nothing"
            timeout: late
          - sub/a.onnx
          - gone/*.onnx
        defaults:
          data: gone/
          budget: {min_sqnr: low}
          samplez: 3
    """
    found = problems(home, text)
    assert [int(line.partition(":")[0]) for line in found] == [2, 4, 5, 6, 7, 9, 10, 11]
    result = CliRunner().invoke(app, ["zoo", str(home / "zoo.yaml"), "-o", "out"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the zoo has 8 problems, nothing was started:\n")
    assert [line.split(":", 1)[1] for line in result.stderr.splitlines()[1:]] == found
    assert not (home.parent / "out").exists()


def test_patterns_leave_out_what_is_named(home: Path) -> None:
    text = "defaults: {data: random}\nmodels:\n  - '**/*.onnx'\n  - {input: sub/deep/c.onnx, preset: A8W8}\n"
    entries = {entry.name: entry for entry in read(home, text)}
    assert list(entries) == ["a", "b", "sub-a", "c"]
    assert [entry.tries[0].preset for entry in entries.values()] == [DEFAULT] * 3 + ["A8W8"]
    assert entries["a"].tries[0].configuration.option("BiasCorrection") == "auto"


def test_without_a_preset_the_default_fits_the_target_or_gives_way_to_a_conversion(home: Path) -> None:
    text = "models:\n  - {{input: a.onnx, data: random, {}}}\n"
    for target in TARGETS:
        (found,) = read(home, text.format(f"target: {target}"))[0].tries
        assert (found.preset, found.configuration.target) == (DEFAULT, target)
        assert found.configuration.per_channel == TARGETS[target].per_channel
    (found,) = read(home, text.format("config: {activation_type: bfloat16, weight_type: bfloat16}"))[0].tries
    assert (found.preset, found.configuration.conversion) == ("BF16", "bfloat16")
    (problem,) = problems(home, text.format("target: tensorrt, preset: S8S8_AAWS"))  # a name is taken at its word
    assert "preset S8S8_AAWS: target 'tensorrt' needs symmetric activations" in problem


def test_a_file_with_brackets_is_no_pattern(home: Path) -> None:
    (home / "a[1].onnx").touch()
    (entry,) = read(home, "models: [{input: 'a[1].onnx', data: random, name: x}]")
    assert entry.input == str(home / "a[1].onnx")


def test_an_entry_adds_to_the_defaults_and_takes_them_back(home: Path) -> None:
    text = """\
        defaults: {data: random, timeout: 2m, budget: {min_sqnr: 20}, options: {WeightsOnly: false}, samples: 4}
        models:
          - a.onnx
          - input: b.onnx
            evaluator: "judge:accuracy"
            budget: {max_drop: 1e-3, max_kl: 5e-2}
            options: {Percentile: 99}
            timeout: null
            samples: null
    """
    a, b = read(home, text)
    assert (a.timeout, b.timeout) == (120, None)
    assert (a.budget, b.budget) == (Budget(min_sqnr=20), Budget(0.001, 20, max_kl=0.05))
    before, after = (entry.tries[0].configuration.extra_options for entry in (a, b))
    assert before["CalibDataSize"] == 4
    assert "CalibDataSize" not in after
    assert before["Percentile"] != 99
    assert before["WeightsOnly"] is after["WeightsOnly"] is False
    assert after["Percentile"] == 99
    assert after["UseRandomData"] is True
    assert [entry.timeout for entry in with_timeout([a, b], 9)] == [120, 9]


def test_anchors_and_merge_keys(home: Path) -> None:
    text = """\
        defaults: &usual {data: random, preset: A8W8}
        models:
          - &one {input: a.onnx, samples: 3}
          - {<<: *one, input: b.onnx}
    """
    assert [entry.tries[0].configuration.extra_options["CalibDataSize"] for entry in read(home, text)] == [3, 3]


def test_presets_are_tried_in_their_order_with_the_same_changes(home: Path) -> None:
    (entry,) = read(home, "models: [{input: a.onnx, data: random, preset: [A16W8, A8W8], config: {per_channel: true}}]")
    assert [one.preset for one in entry.tries] == ["A16W8", "A8W8"]
    assert all(one.configuration.per_channel for one in entry.tries)


def test_folders_and_dictionaries(home: Path) -> None:
    out = home.parent / "out"
    assert [entry.name for entry in read_zoo(home, out, {"data": "random"})] == ["a", "b", "sub-a", "sub-deep-c"]
    by_hand = {"models": [{"input": home / "a.onnx", "data": home / "a.npz"}]}
    (entry,) = read_zoo(by_hand, out)
    assert (entry.input, entry.data) == (str(home / "a.onnx"), str(home / "a.npz"))
    with pytest.raises(ManifestError) as caught:
        read_zoo(
            {"models": [{"input": "a.onnx"}, {"input": "b.onnx", "data": "random", "preset": ["A8W8", "no"]}]}, out
        )
    assert [problem.place for problem in caught.value.problems] == [
        "manifest.models[0].input",
        "manifest.models[1].preset[1]",
    ]


def test_what_is_no_manifest_at_all(home: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; give a manifest"):
        read_zoo(home / "gone.yaml", home / "out")
    with pytest.raises(ConfigError, match="is a model; give a manifest"):
        read_zoo(home / "a.onnx", home / "out")
    (home / "latin.yaml").write_bytes(b"models: \xe4")
    with pytest.raises(ConfigError, match="cannot read the manifest"):
        read_zoo(home / "latin.yaml", home / "out")


def test_check(home: Path) -> None:
    """Finds missing models as well, starts nothing; flags are the weakest defaults."""
    file = written(home, "models: [a.onnx, {input: gone.onnx, preset: A8W8}]")
    with pytest.raises(ManifestError, match="a problem"):
        check_zoo(file, home.parent / "out", defaults={"data": "random"})
    file = written(home, "models: [a.onnx, {input: b.onnx, preset: A8W8}]")
    command = ["zoo", str(file), "-o", "out", "--check", "--random-data", "--preset", "A16W8"]
    assert CliRunner().invoke(app, command).stdout == "2 models, no problems.\n"
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout) == {"models": ["a", "b"]}
    assert CliRunner().invoke(app, [*command, "--data", "a.npz"]).exit_code == 2
    assert not (home.parent / "out").exists()
    a, b = read_zoo(file, home.parent / "out", {"data": "random", "preset": "A16W8"})
    assert (a.tries[0].preset, b.tries[0].preset) == ("A16W8", "A8W8")


def test_entries_travel(home: Path) -> None:
    text = "models: [{input: a.onnx, data: a.npz, preset: [A8W8, A16W8], budget: {min_sqnr: 3}, timeout: 3}]"
    (entry,) = read(home, text)
    assert Entry.from_json(entry.to_json()) == entry


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90),
        (90, 90),
        ("1.5h", 5400),
        (" 2 m ", 120),
        ("3s", 3),
        ("0", None),
        ("-1", None),
        ("1d", None),
        (True, None),
    ],
)
def test_seconds(text: object, value: float | None) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), (2, 2.0), (-1, None), ("inf", None), ("nan", None), (False, None)]
)
def test_numbers(text: object, value: float | None) -> None:
    assert number(text) == value
