"""Files of any name, links in circles, and manifests that nobody would write: each costs itself only."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed")
pytest.importorskip("yaml")

from quark_onnx.core.errors import ConfigError, ModelError
from quark_onnx.graph import io
from quark_onnx.zoo import ManifestError
from quark_onnx.zoo.entry import Entry
from quark_onnx.zoo.found_models import LONGEST, fit, fits
from quark_onnx.zoo.located_values import DEEPEST, LARGEST
from quark_onnx.zoo.manifest import read_zoo

posix = pytest.mark.skipif(sys.platform == "win32", reason="its file systems take no such names")

ODD = [
    "model (1)",
    "a,b",
    "new\nline",
    "\x1b[2Jx",
    "-rf",
    "--help",
    ".hidden",
    " space ",
    "dot.",
    "a[1]",
    "{stem}",
    "a:b|c?*",
    "gpj\u202e",
    "日本語",
    "x" * 250,
    "é" * 120,
    "results.jsonl",
    "Index.html",
    os.fsdecode(b"latin\xe4"),
    "&",
    "''",
]


def entries(source: Path, output: Path) -> list[Entry]:
    return read_zoo(source, output, {"data": "random"})


def problems(file: Path, text: str) -> list[str]:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        read_zoo(file, file.parent / "out")
    return [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]


@posix
@pytest.mark.parametrize("how", ["folder", "pattern", "deep pattern", "name"])
def test_any_file_is_an_entry_whatever_it_is_called(how: str, tmp_path: Path) -> None:
    """With a name of its own, which a folder can have; ordinary ones are as they were."""
    home = tmp_path / "a[b]*" / "models"
    home.mkdir(parents=True)
    odd = [name for name in ODD if how != "pattern" or not name.startswith(".")]
    for name in odd:
        (home / f"{name}.onnx").touch()
    source, end = home, ""
    if how != "folder":
        source = home.parent / "zoo.yaml"
        named = ', name: "{stem}-{parent}"' if how == "name" else ""
        end = "-models" if named else ""
        folder = "models" if how == "name" else "models/*.onnx" if how == "pattern" else "models"
        source.write_text(f"models: [{{input: '{folder}'{named}}}]")
    found = {Path(entry.input).name: entry for entry in entries(source, tmp_path / "out")}
    assert found.keys() == {f"{name}.onnx" for name in odd}
    names = [entry.name for entry in found.values()]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert fits(name)
        (tmp_path / "out" / name).mkdir(parents=True)  # the file system takes it
    for plain in ("model (1)", "a,b", "日本語"):
        assert found[f"{plain}.onnx"].name == plain + end
    for entry in found.values():
        assert Entry.from_json(entry.to_json()) == entry


def test_names_are_fit_or_made_so() -> None:
    for name in ("a", "model (1)", "ResNet-50 v1.5@int8+x=y,z", "größe", "x" * LONGEST):
        assert fits(name) and fit(name) == name
    for name in (*ODD[2:13], "", ".", "..", "a/b", "x" * (LONGEST + 1), "é" * 100, "index.json"):
        assert not fits(name), name
        assert fits(fit(name)), name
        assert fit(fit(name)) == fit(name)
    assert fit("a:b") != fit("a?b")
    assert fit("x" * 300)[:100] == "x" * 100


def test_two_files_that_would_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/b.onnx", "a-b.onnx", "a-B.onnx"):
        (tmp_path / name).touch()
    found = entries(tmp_path, tmp_path / "out")
    if len(found) == 3:  # where case counts
        assert [len(entry.name) for entry in found] == [3, 12, 12]
    assert len({entry.name.lower() for entry in found}) == len(found)


def test_a_name_that_the_user_gives_is_taken_at_its_word(tmp_path: Path) -> None:
    (tmp_path / "a?.onnx").touch()
    entry = "models:\n  - {input: 'a?.onnx', data: random, name: '%s'}"
    for name in ("a/b", "x" * 300, "index.html", "{stem}/{parent}", ".{stem}"):
        (found,) = problems(tmp_path / "z.yaml", entry % name)
        assert "cannot name a folder of outputs; give another name" in found
        assert len(found) < 120
    (tmp_path / "z.yaml").write_text(entry % "{stem}-x")
    (found,) = entries(tmp_path / "z.yaml", tmp_path / "out")
    assert found.name.startswith("a_-x-")


@posix
@pytest.mark.parametrize("pattern", ["", "**/*.onnx", "**", "*", "**/**/*.onnx", "**/deep/**"])
def test_links_in_circles(pattern: str, tmp_path: Path) -> None:
    """Two links to where they are: whoever follows them has 2⁴⁰ paths to look at."""
    models = tmp_path / "models"
    (models / "deep").mkdir(parents=True)
    (models / "m.onnx").touch()
    (models / "deep" / "n.onnx").touch()
    for name in ("one", "two", "deep/up", "deep/over"):
        (models / name).symlink_to(models)
    (models / "gone.onnx").symlink_to("nowhere")
    (models / "self.onnx").symlink_to("self.onnx")
    (models / "other.onnx").symlink_to("m.onnx")
    source = tmp_path / "zoo.yaml"
    source.write_text(f"models: ['{os.path.join('models', pattern)}']")
    found = sorted(Path(entry.input).name for entry in entries(source, tmp_path / "out"))
    deep = ["n.onnx"] if pattern != "*" else []
    top = ["gone.onnx", "m.onnx", "other.onnx", "self.onnx"] if pattern != "**/deep/**" else []
    assert found == sorted(deep + top)


@posix
def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "m.onnx").touch()
    (tmp_path / "near").symlink_to("far")
    for source in ("near", "near/*.onnx", "near/**/*.onnx", "*/m.onnx", "near/m.onnx"):
        (tmp_path / "zoo.yaml").write_text(f"models: ['{source}']")
        found = [entry.input for entry in entries(tmp_path / "zoo.yaml", tmp_path / "out")]
        assert str(tmp_path / "near" / "m.onnx") in found


def test_patterns_know_folders_and_hidden_files(tmp_path: Path) -> None:
    for name in ("a.onnx", "sub/b.onnx", "sub/deep/c.onnx", ".git/d.onnx", "sub/.e.onnx", "f.onnx/g.onnx", "sub/h.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for pattern, names in (
        ("**/*.onnx", ["a", "f.onnx-g", "sub-b", "sub-deep-c"]),
        ("sub/**/*.onnx", ["b", "deep-c"]),
        ("**/deep/*.onnx", ["sub-deep-c"]),
        ("*/*.onnx", ["f.onnx-g", "sub-b"]),
        ("s[tu]b/?.onnx", ["sub-b"]),
        (".git/*.onnx", ["d"]),
    ):
        (tmp_path / "zoo.yaml").write_text(f"models: ['{pattern}']")
        assert [entry.name for entry in entries(tmp_path / "zoo.yaml", tmp_path / "out")] == names, pattern


# YAML


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "[{a: "])
def test_nesting_is_told(opening: str, tmp_path: Path) -> None:
    for depth in (DEEPEST + 1, 1000, 20_000):
        (found,) = problems(tmp_path / "z.yaml", opening * depth)
        assert f"values are nested more than {DEEPEST} deep" in found
    (found,) = problems(tmp_path / "z.yaml", "[" * 20 + "]" * 20)
    assert "the manifest must be a mapping" in found


def test_a_few_lines_that_stand_for_billions(tmp_path: Path) -> None:
    """Lists, mappings, and mappings that are merged; none is spelled out."""

    def nine_times(line: str) -> str:
        return "a0: &a0 {k0: 1}\n" + "".join(
            line.format(new=i, nine=", ".join(f"p{j}: *a{i - 1}" for j in range(9)), all=", ".join([f"*a{i - 1}"] * 9))
            for i in range(1, 30)
        )

    for line in ("a{new}: &a{new} [{all}]\n", "a{new}: &a{new} {{{nine}}}\n"):
        found = problems(tmp_path / "z.yaml", nine_times(line))
        assert sum("stands for more than 100000 others; use fewer anchors" in one for one in found) >= 1
    found = problems(tmp_path / "z.yaml", nine_times("a{new}: &a{new} {{k{new}: 1, <<: [{all}]}}\n"))
    assert len(found) == 30 and not any("stands for" in one for one in found)  # keys that are unknown


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("2024-99-99", "'2024-99-99' is no timestamp"),
        ("!!bool maybe", "'maybe' is no bool"),
        ("!!int x", "'x' is no int"),
        ("!!float x", "'x' is no float"),
        ("!!timestamp x", "'x' is no timestamp"),
        ("9" * 5000, "is no int"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("!own x", "could not determine a constructor"),
    ],
)
def test_values_that_are_none(value: str, said: str, tmp_path: Path) -> None:
    (found, *_) = problems(tmp_path / "z.yaml", f"models:\n  - input: a.onnx\n    samples: {value}\n    data: random\n")
    assert found.startswith("3: ")
    assert said in found


def test_keys_and_merges_that_are_none(tmp_path: Path) -> None:
    found = problems(
        tmp_path / "z.yaml", "models:\n  - ? [a]\n    : b\n    <<: 3\n    input: a.onnx\n    data: random\n"
    )
    assert found == [
        "2: a key must be a name, not a list or a mapping",
        "4: << must be a mapping, or a list of mappings",
    ]


def test_of_merged_mappings_the_first_counts_and_what_is_said_itself_more(tmp_path: Path) -> None:
    (tmp_path / "z.yaml").write_text("""
        defaults: {data: random}
        models:
          - &a {input: a.onnx, samples: 1, timeout: 1}
          - &b {input: b.onnx, samples: 2, timeout: 2, name: b}
          - {input: c.onnx, <<: [*a, *b], name: c, timeout: 3}
    """)
    (_, _, merged) = entries(tmp_path / "z.yaml", tmp_path / "out")
    assert (merged.name, Path(merged.input).name, merged.timeout) == ("c", "c.onnx", 3)
    assert json.loads(merged.tries[0].config)["extra_options"]["CalibDataSize"] == 1


def test_a_file_that_is_no_manifest_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "z.yaml").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ConfigError, match=r"has more than 16 MB"):
        read_zoo(tmp_path / "z.yaml", tmp_path / "out")


@posix
def test_a_name_that_is_no_text_is_the_reason(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"latin\xe4.onnx")
    path.touch()
    with pytest.raises(ModelError, match=r"holds bytes that are no UTF-8, which onnx cannot open; rename it"):
        io.load(path)
    with pytest.raises(ModelError, match="is not a valid ONNX model"):
        io.load(path.rename(tmp_path / "latinä.onnx"))
