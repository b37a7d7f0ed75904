"""The folder of a zoo: what decides over the address of a result, and that the folder is whole at any time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx import ConfigError, get_default_config
from quark_onnx.core.settings.budget import Budget
from quark_onnx.engine.runtimes.runtime import Missing
from quark_onnx.graph.model_files import external_files
from quark_onnx.zoo import result_address
from quark_onnx.zoo.entry import Entry, Try
from quark_onnx.zoo.result_address import address
from quark_onnx.zoo.rows import Cost, Outcome, Row, row_of
from quark_onnx.zoo.store import Store, hashes, locked, stop, write_result

PRESET = get_default_config("S8S8_AAWS")
TEXT = "g (float[N, 8] x) => (float[N, 8] y) { a = MatMul (x, w) y = Relu (a) }"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A model whose weights are in a file of their own, a folder of data, an evaluator of two files."""
    home = tmp_path / "home"
    (home / "data" / "more").mkdir(parents=True)
    proto = text_model(TEXT, w=normal(8, 8))
    onnx.save(proto, str(home / "a.onnx"), save_as_external_data=True, location="a.weights", size_threshold=0)
    for name in ("x.npy", "more/y.npy"):
        np.save(home / "data" / name, normal(8))
    (home / "judge.py").write_text("def f(model):\n    return 1\n", encoding="utf-8")
    return home


def entry(home: Path) -> Entry:
    tries = (Try("S8S8_AAWS", PRESET.to_json()),)
    return Entry("a", str(home / "a.onnx"), "zoo.yaml:3", str(home), tries, str(home / "data"), "judge:f", Budget(0.1))


def append(file: Path) -> None:
    """One more byte, the same time of change."""
    before = file.stat()
    file.write_bytes(file.read_bytes() + b"\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


Change = Callable[[Path, Entry], Entry]


def touched(name: str) -> Change:
    """The same entry, one of its files changed."""

    def change(home: Path, entry: Entry) -> Entry:
        append(home / name)
        return entry

    return change


def other_sample(home: Path, entry: Entry) -> Entry:
    (home / "data" / "x.npy").rename(home / "data" / "z.npy")
    return entry


def new_sample(home: Path, entry: Entry) -> Entry:
    np.save(home / "data" / "n.npy", normal(8))
    return entry


def without_weights(home: Path, entry: Entry) -> Entry:
    (home / "a.weights").unlink()
    return entry


def renamed(home: Path, entry: Entry) -> Entry:
    shutil.copy(home / "a.onnx", home / "b.onnx")
    return replace(entry, input=str(home / "b.onnx"))


OTHER = (Try("S8S8_AAWS", replace(PRESET, per_channel=True).to_json()),)
MATTERS: dict[str, Change] = {
    "model": touched("a.onnx"),
    "weights": touched("a.weights"),
    "weights gone": without_weights,
    "sample": touched("data/more/y.npy"),
    "name of a sample": other_sample,
    "new sample": new_sample,
    "evaluator's file": touched("judge.py"),
    "configuration": lambda home, entry: replace(entry, tries=OTHER),
    "another try": lambda home, entry: replace(entry, tries=entry.tries + OTHER),
    "no data": lambda home, entry: replace(entry, data=None),
    "one sample": lambda home, entry: replace(entry, data=str(home / "data" / "x.npy")),
    "evaluator": lambda home, entry: replace(entry, evaluator="judge:g"),
    "command": lambda home, entry: replace(entry, evaluator="python judge.py {model}"),
    "budget": lambda home, entry: replace(entry, budget=Budget(0.2)),
    "name": lambda home, entry: replace(entry, name="b"),
    "input": renamed,
}


@pytest.mark.parametrize("what", MATTERS)
def test_address_depends_on(what: str, home: Path) -> None:
    before = address(entry(home))
    assert address(entry(home)) == before
    assert address(MATTERS[what](home, entry(home))) != before


@pytest.mark.parametrize("name", ["VERSION", "LAYOUT"])
def test_address_depends_on_versions(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = address(entry(home))
    monkeypatch.setattr(result_address, name, "9")
    assert address(entry(home)) != before


@pytest.mark.parametrize("target", ["openvino", "cpu"])
def test_address_depends_on_the_runtime_of_a_target(target: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is missing, the figures are others; that of no other target matters."""
    one = replace(entry(home), tries=(Try("S8S8_AAWS", replace(PRESET, target=target).to_json()),))
    monkeypatch.setattr(result_address, "runtime_of", lambda row: Missing(row.runtime, "Third", "not here"))
    missing = address(one)
    monkeypatch.undo()
    assert (address(one) != missing) is (target == "openvino")


def hidden(home: Path, entry: Entry) -> Entry:
    (home / "data" / ".cache").mkdir()
    (home / "data" / ".cache" / "x.npy").touch()
    return entry


def beside(home: Path, entry: Entry) -> Entry:
    (home / "other.onnx").touch()
    (home / "other.py").touch()
    return entry


def later(home: Path, entry: Entry) -> Entry:
    for file in home.rglob("*"):
        os.utime(file, (1, 1))
    return entry


def moved(home: Path, before: Entry) -> Entry:
    return entry(home.rename(home.with_name("elsewhere")))


NOTHING: dict[str, Change] = {
    "time limit": lambda home, entry: replace(entry, timeout=3.0),
    "place in the manifest": lambda home, entry: replace(entry, place="zoo.yaml:9"),
    "hidden files": hidden,
    "other files": beside,
    "times of change": later,
    "where it all is": moved,
}


@pytest.mark.parametrize("what", NOTHING)
def test_address_does_not_depend_on(what: str, home: Path) -> None:
    before = address(entry(home))
    assert address(NOTHING[what](home, entry(home))) == before


def test_external_files(home: Path) -> None:
    """Those of the model, of constants and of graphs inside it; none of what only speaks of a location."""
    assert external_files(home / "a.onnx") == [home / "a.weights"]
    plain = text_model(TEXT.replace("a =", "location ="), w=normal(8, 8))
    plain.graph.node[1].input[0] = "location"
    onnx.save(plain, str(home / "plain.onnx"))
    assert external_files(home / "plain.onnx") == []
    (home / "none.onnx").write_bytes(b"location")
    assert external_files(home / "none.onnx") == []
    (home / "empty.onnx").touch()
    assert external_files(home / "empty.onnx") == []


def made(store: Store, name: str = "a", status: str = "good", *, pages: bool = False) -> Outcome:
    """A result, published."""
    folder = store.temporary / f"made-{name}"
    (folder / "plan").mkdir(parents=True)
    (folder / "model_int8.onnx").write_bytes(b"model")
    (folder / "plan" / "plan.json").write_text("{}", encoding="utf-8")
    row = Row(name, f"{name}.onnx", status, "1234", sqnr={"y": float("inf")}, files=hashes(folder))  # type: ignore[arg-type]
    write_result(folder, row)
    cost = {"seconds": 2.5, "stages": {"read": 1.0}, "peak_bytes": 3, "attempts": 1, "pages": pages}
    (folder / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
    (folder / "log.txt").touch()
    store.publish(folder, name)
    return Outcome(row, Cost(**cost), kept=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10**5, '{"files": [], "status": "good"}', "\udc80", "null"])
def test_a_damaged_result_is_made_anew(text: str, tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        made(store)
        assert store.kept("a", "1234", pages=False) is not None
        (store.root / "a" / "result.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert store.kept("a", "1234", pages=False) is None


@pytest.mark.parametrize("lock", ['{"pid": "x"}', '{"pid": null}', '{"pid": -1}', f'{{"pid": {10**30}}}', "[" * 10**5])
def test_a_damaged_lock_counts_for_nothing(lock: str, tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        pass
    store.lock.parent.mkdir(parents=True, exist_ok=True)
    store.lock.write_text(lock)
    with locked(tmp_path / "out") as store:
        assert not store.stopped()


def test_a_whole_result_is_kept(tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        expected = made(store)
    with locked(tmp_path / "out") as store:
        assert store.kept("a", "1234", pages=False) == expected
        assert (store.kept("a", "1235", pages=False), store.kept("b", "1234", pages=False)) == (None, None)
        assert store.kept("a", "1234", pages=True) is None
        made(store, pages=True)
        assert store.kept("a", "1234", pages=True) is not None
        assert store.kept("a", "1234", pages=False) is not None


@pytest.mark.parametrize("status", ["over budget", "failed", "stopped"])
def test_failures_are_not_kept(status: str, tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        made(store, status=status)
        assert (store.kept("a", "1234", pages=False) is not None) == (status == "over budget")


@pytest.mark.parametrize("name", ["model_int8.onnx", "plan/plan.json", "result.json"])
@pytest.mark.parametrize(
    "how", [Path.unlink, append, lambda file: file.write_text("[]"), lambda file: file.write_bytes(b"\xff")]
)
def test_what_is_not_whole_is_not_kept(name: str, how: Callable[[Path], object], tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        made(store)
        how(store.root / "a" / name)
        kept = store.kept("a", "1234", pages=False)
        assert (kept is None) or (name == "result.json" and how is append)


@pytest.mark.parametrize("name", ["cost.json", "log.txt"])
def test_what_holds_times_does_not_count(name: str, tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        made(store)
        (store.root / "a" / name).unlink()
        assert store.kept("a", "1234", pages=False) is not None
        assert name not in hashes(store.root / "a")


def test_a_new_result_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        made(store)
        (store.root / "a" / "old").touch()
        made(store)
        assert not (store.root / "a" / "old").exists()
        assert [path.name for path in store.temporary.iterdir()] == []


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        assert not store.stopped()
        with pytest.raises(ConfigError, match="another run is at work"), locked(tmp_path / "out"):
            pass
        assert not store.stopped()
        stop(store)
        assert store.stopped()
        with pytest.raises(ConfigError, match="another run is at work"), locked(tmp_path / "out"):
            pass  # it still tidies up
    with locked(tmp_path / "out") as other:
        assert store.stopped()
        assert not other.stopped()
    assert [path.name for path in (tmp_path / "out" / ".zoo").iterdir()] == []


def test_an_error_lets_the_folder_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "out"):
        raise KeyError
    assert [path.name for path in (tmp_path / "out" / ".zoo").iterdir()] == []


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder that a run, killed at work, left behind; the file is its lock."""
    code = "import sys, os\nfrom pathlib import Path\nfrom quark_onnx.zoo.store import locked\n"
    code += "with locked(Path(sys.argv[1])) as store:\n    (store.temporary / 'a').mkdir()\n    os._exit(9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False, timeout=60)
    assert done.returncode == 9
    assert list((tmp_path / "out" / ".zoo" / "tmp").glob("*/a"))
    return tmp_path / "out" / ".zoo" / "lock"


def test_a_run_that_was_killed_holds_nothing(left: Path) -> None:
    with locked(left.parents[1]) as store:
        assert not list(store.temporary.iterdir())
        assert list((left.parent / "tmp").iterdir()) == [store.temporary]
    assert [path.name for path in left.parent.iterdir()] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"run": 3}'])
def test_a_run_that_was_killed_while_it_took_the_lock(content: bytes, left: Path) -> None:
    left.write_bytes(content)
    with locked(left.parents[1]) as store:
        assert not store.stopped()


def test_a_run_on_another_machine_counts_as_alive(left: Path) -> None:
    found = json.loads(left.read_text("utf-8"))
    left.write_text(json.dumps({**found, "host": "elsewhere"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"remove {left}"), locked(left.parents[1]):
        pass


def test_another_process_with_the_same_number_is_another_process(left: Path) -> None:
    found = json.loads(left.read_text("utf-8"))
    left.write_text(json.dumps({**found, "pid": os.getpid()}), encoding="utf-8")
    with locked(left.parents[1]):
        pass


def test_workers_of_a_killed_run_can_publish_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "out") as old:
        (old.temporary / "a").mkdir()
        old.lock.write_text("{}", encoding="utf-8")
        with locked(tmp_path / "out"):
            assert old.stopped()
            with pytest.raises(FileNotFoundError):
                old.publish(old.temporary / "a", "a")
        assert not (tmp_path / "out" / "a").exists()


def test_folders_of_others_are_spared(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="is not the output of a zoo"), locked(tmp_path):
        pass
    with pytest.raises(ConfigError, match="is not the output of a zoo"), locked(tmp_path / "thesis.txt"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    with locked(tmp_path / "empty"):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write"), locked(tmp_path / "file" / "out"):
        pass


def test_results_are_replaced_as_a_whole(tmp_path: Path) -> None:
    with locked(tmp_path / "out") as store:
        outcomes = [made(store, name) for name in ("b", "a")]
        store.write_results(outcomes[:1])
        store.write_results(outcomes)
        lines = (store.root / "results.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [outcome.to_dict() for outcome in outcomes]
    assert row_of(json.loads(lines[0])) == outcomes[0].row
    with pytest.raises(ValueError, match="unknown status"):
        row_of({**json.loads(lines[0]), "status": "fine"})
