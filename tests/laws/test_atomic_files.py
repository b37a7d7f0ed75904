"""Outputs are whole or not there, nothing that is no file is replaced, and no two outputs are one."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_runs import killed_everywhere

from quark_onnx.core import atomic_files
from quark_onnx.core.atomic_files import behind_links, keep_apart, new_file, new_folder
from quark_onnx.core.errors import ConfigError

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and devices are other things there")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str = "new") -> None:
    with new_file(path) as temporary:
        temporary.write_text(text)


def write_folder(path: Path, text: str = "new") -> None:
    with new_folder(path, ("a", "b")) as temporary:
        (temporary / "a").write_text(text)
        (temporary / "b").write_text(text)


# links and devices


@posix
@pytest.mark.parametrize("what", ["in the same folder", "in another", "a chain", "to nothing yet", "through a folder"])
def test_a_link_stays_and_leads_to_what_is_written(what: str, folder: Path) -> None:
    (folder / "far").mkdir()
    target = folder / ("real" if what == "in the same folder" else "far/real")
    if what != "to nothing yet":
        target.write_text("old")
    path = folder / "link"
    if what == "a chain":
        (folder / "far/second").symlink_to("real")
        path.symlink_to("far/second")
    elif what == "through a folder":
        (folder / "there").symlink_to("far")
        path = folder / "there/real"
    else:
        path.symlink_to(target)
    links = [file for file in folder.rglob("*") if file.is_symlink()]
    write(path)
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert all(link.is_symlink() for link in links)
    assert not list(folder.rglob(".*"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


@posix
@pytest.mark.parametrize("make", [pipe, listening, device, circle])
def test_what_is_no_file_is_refused_and_stays(make: Callable[[Path], None], folder: Path) -> None:
    path = folder / "out"
    make(path)
    before = os.lstat(path)
    for attempt in (lambda: write(path), lambda: write_folder(path), lambda: behind_links(path)):
        with pytest.raises(ConfigError, match=r"device, a pipe or a socket|Too many levels of symbolic links"):
            attempt()
    assert os.lstat(path) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(folder) == ["out"]


def test_files_folders_and_what_is_not_there_are_no_devices(folder: Path) -> None:
    (folder / "file").touch()
    for name in ("file", ".", "absent", "absent/deeper"):
        assert behind_links(folder / name) == folder / name
    with pytest.raises(ConfigError, match="cannot write"):
        write(folder)


def test_names_as_long_as_they_may_be(folder: Path) -> None:
    write(folder / ("x" * 255))
    assert [len(name) for name in os.listdir(folder)] == [255]


# killed


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_the_old_or_the_new_wherever_it_is_killed(
    exchange: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system cannot exchange names it may be gone for a moment, but never mixed."""
    path = folder / "plan"
    if not exchange:
        monkeypatch.setattr(atomic_files, "_swapped", lambda one, other: False)
    elif sys.platform != "linux":
        pytest.skip("only Linux exchanges names")
    write_folder(path, "old")
    kills = 0
    for _ in killed_everywhere(lambda: write_folder(path), monkeypatch):
        found = {file.name: file.read_text() for file in path.iterdir()} if path.exists() else {}
        assert found == {"a": "old", "b": "old"} or (not exchange and not found)
        if not found:
            write_folder(path, "old")
        kills += 1
    assert kills == (1 if exchange else 3)
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "new", "b": "new"}


def test_an_old_folder_comes_back_where_the_new_one_cannot_be_moved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(folder / "plan", "old")
    monkeypatch.setattr(atomic_files, "_swapped", lambda one, other: False)
    real = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if target == folder / "plan" and source.name == "plan":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder / "plan")
    assert {file.name: file.read_text() for file in (folder / "plan").iterdir()} == {"a": "old", "b": "old"}
    assert os.listdir(folder) == ["plan"]


@posix
def test_what_a_killed_process_left_is_removed_by_the_next(folder: Path) -> None:
    """Not what is new or still held, be it by this process, nor what only looks like it."""

    def old(name: str) -> Path:
        (folder / name).mkdir()
        (folder / name / "half").touch()
        os.utime(folder / name, (0, 0))
        return folder / name

    left, other = old(".quark_onnx-left"), old(".other-left")
    write(folder / "a")
    assert not left.exists() and other.exists()
    new = old(".quark_onnx-new")
    os.utime(new)
    with new_file(folder / "b") as temporary:
        os.utime(temporary.parent, (0, 0))
        write(folder / "c")
        assert temporary.parent.exists()
        temporary.touch()
    assert sorted(os.listdir(folder)) == [".other-left", new.name, "a", "b", "c"]


# two outputs


@posix
def test_one_file_by_two_names(folder: Path) -> None:
    (folder / "there").write_text("x")
    (folder / "link").symlink_to("there")
    (folder / "ahead").symlink_to("later")
    (folder / "sub").mkdir()
    os.link("there", "hard")
    for one, other in (
        ("there", "there"),
        ("there", folder / "there"),
        ("there", "sub/../there"),
        ("link", "there"),
        ("hard", "there"),
        ("later", "later"),
        ("later", "./sub/../later"),
        ("ahead", "later"),
        ("later", "LATER"),
    ):
        for files, inputs in (({"--a": Path(one), "--b": Path(other)}, {}), ({"--a": Path(one)}, {"B": Path(other)})):
            with pytest.raises(ConfigError, match=r"is (--a|--b|B); choose another name"):
                keep_apart(files, inputs=inputs)


def test_files_that_are_apart(folder: Path) -> None:
    (folder / "there").touch()
    for one, other in (("there", "later"), ("a", "b"), ("a", "a.json"), ("sub/a", "a"), ("there", "THERE2")):
        keep_apart({"--a": Path(one), "--b": Path(other), "--c": None}, {"--d": None}, {"E": None})
    keep_apart({"--a": Path("a")}, inputs={"B": Path("b"), "C": Path("b")})  # an input may be read twice


def test_nothing_is_inside_of_a_folder_that_is_replaced(folder: Path) -> None:
    (folder / "plan").mkdir()
    (folder / "plan" / "model.onnx").touch()
    for inner in ("plan/model.onnx", "plan/new.onnx", "./plan/deep/new.onnx"):
        for files, inputs in (({"--a": Path(inner)}, {}), ({}, {"A": Path(inner)})):
            with pytest.raises(ConfigError, match=r"is in plan, which --plan replaces"):
                keep_apart(files, {"--plan": Path("plan")}, inputs)
    with pytest.raises(ConfigError, match=r"--a plan is a folder; give a file name"):
        keep_apart({"--a": Path("plan")})
    keep_apart({"--a": Path("planner.onnx")}, {"--plan": Path("plan")}, {"B": Path("plan.onnx")})
    keep_apart({"--a": Path("plan/q.onnx")}, inputs={"B": Path("plan/model.onnx")})
