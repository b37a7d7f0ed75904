"""The folder of a zoo: what is in it is whole at any time, whoever is killed when.

    OUT/NAME/       model_int8.onnx  plan/  evidence.json  result.json    the same bytes in every run
                    cost.json  log.txt  report.html  report.json  card.json  search.html  search.json
                                                                          times, and words of the run that made it
    OUT/            results.jsonl: a line per model of the last run   index.html, index.json: the page of the zoo
    OUT/.zoo/       lock: the run that is at work   tmp/: what is being made
                    searches/NAME/: what a search has measured, to go on from

A model is made in `.zoo/tmp` and moved to its place. A run has the folder for itself: its id is in the lock, and
workers that find another id, or none, stop and leave everything as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from quark_onnx.core.atomic_files import replace_folder, unwritable
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.json_reading import json_of
from quark_onnx.core.json_writing import json_text
from quark_onnx.core.visible_text import json_visible
from quark_onnx.zoo.result_address import file_hash
from quark_onnx.zoo.rows import Cost, Outcome, Row, row_of

RESULT, COST, LOG, RESULTS = "result.json", "cost.json", "log.txt", "results.jsonl"

MEASURED = (COST, LOG, "report.html", "report.json", "card.json", "search.html", "search.json")
"""Files of a model that differ from run to run: they hold times."""


@dataclass(frozen=True)
class Store:
    """The output folder, as one run sees it."""

    root: Path
    run: str

    @property
    def temporary(self) -> Path:
        """Where this run makes things."""
        return self.root / ".zoo" / "tmp" / self.run

    @property
    def searches(self) -> Path:
        """What searches have measured, a folder for each model; it outlives the run."""
        return self.root / ".zoo" / "searches"

    @property
    def lock(self) -> Path:
        """The file that says which run is at work."""
        return self.root / ".zoo" / "lock"

    def stopped(self) -> bool:
        """Whether the run is over, for its workers: it ended, was interrupted, or another one took the folder."""
        found = _read_lock(self.lock)
        return found is None or found.get("run") != self.run or bool(found.get("stopped"))

    def kept(self, name: str, address: str, *, pages: bool) -> Outcome | None:
        """An earlier result that is still right and complete, with its page if `pages`.

        Failures are not kept, they are tried again.
        """
        folder = self.root / name
        try:
            row = row_of(json_of((folder / RESULT).read_text("utf-8")))
            whole = all(file_hash(folder / file) == digest for file, digest in row.files.items())
        except Exception:  # not there, or damaged
            return None
        if row.address != address or row.status not in ("good", "over budget") or not whole:
            return None
        cost = _cost(folder / COST)
        return None if pages and not cost.pages else Outcome(row, cost, kept=True)

    def publish(self, folder: Path, name: str) -> None:
        """Move a folder that is complete to its place, in place of an earlier one."""
        old = folder.with_name("replaced")
        replace_folder(folder, self.root / name, old)
        for rest in (folder, old):
            shutil.rmtree(rest, ignore_errors=True)

    def write_results(self, outcomes: Iterable[Outcome]) -> None:
        """The lines of the models that are done so far, in place of the earlier file."""
        lines = [json_visible(json.dumps(outcome.to_dict(), ensure_ascii=False)) + "\n" for outcome in outcomes]
        file = self.temporary / RESULTS
        with _writing(self.root):
            file.write_text("".join(lines), encoding="utf-8")
            os.replace(file, self.root / RESULTS)


def _cost(file: Path) -> Cost:
    try:
        return Cost(**json_of(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return Cost()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by name of the files that are the same in every run, but for the result itself."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [file.relative_to(folder).as_posix() for file in files]
    return {name: file_hash(folder / name) for name in names if name not in (*MEASURED, RESULT)}


def write_result(folder: Path, row: Row) -> None:
    """Write `result.json`, whole: a folder that holds it is complete."""
    beside = folder / f"{RESULT}.new"
    beside.write_text(json_text(row) + "\n", encoding="utf-8")
    os.replace(beside, folder / RESULT)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[Store]:
    """The folder for this run alone, cleared of what killed runs left.

    Raises:
        ConfigError: another run is at work in it, it is not the folder of a zoo, or it cannot be written.
    """
    store = Store(root.absolute(), uuid.uuid4().hex[:12])
    with _writing(root):
        if root.exists() and not _ours(root):
            raise ConfigError(f"{root} exists and is not the output of a zoo; choose another folder or remove it")
        (root / ".zoo").mkdir(parents=True, exist_ok=True)
        _take(store)
        _clear(store)
        store.temporary.mkdir(parents=True)
    try:
        yield store
    finally:
        if (_read_lock(store.lock) or {}).get("run") == store.run:
            _clear(store)
            store.lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(root, error) from error


def _clear(store: Store) -> None:
    """Remove what runs left. It is moved away first: workers of a killed run can publish nothing that is half gone."""
    folder = store.root / ".zoo"
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder / "tmp", folder / f"old-{uuid.uuid4().hex[:12]}")
    for old in folder.glob("old-*"):
        shutil.rmtree(old, ignore_errors=True)


def _ours(root: Path) -> bool:
    names = [file.name for file in root.iterdir()] if root.is_dir() else ["not a folder"]
    return not names or ".zoo" in names or RESULTS in names


def stop(store: Store) -> None:
    """Tell the workers to stop. The folder is that of the run until the end of `locked`."""
    if not store.stopped():
        file = store.temporary / "lock"
        file.write_text(json.dumps({**(_read_lock(store.lock) or {}), "stopped": True}), encoding="utf-8")
        os.replace(file, store.lock)


def _read_lock(lock: Path) -> dict[str, Any] | None:
    """What the lock says; nothing if its run was killed while it wrote it. None: there is none."""
    try:
        found = json_of(lock.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _take(store: Store) -> None:
    """Put this run into the lock. A lock whose process is gone counts for nothing."""
    me = {"run": store.run, "host": os.uname().nodename if hasattr(os, "uname") else "", **_process(os.getpid())}
    for _ in range(2):
        try:
            with store.lock.open("x", encoding="utf-8") as file:
                json.dump(me, file)
            return
        except FileExistsError:
            if _at_work(_read_lock(store.lock) or {}, str(me["host"])):
                break
            store.lock.unlink(missing_ok=True)
    raise ConfigError(
        f"another run is at work in {store.root}; wait for it, choose another output folder, or, if it died on another "
        f"machine, remove {store.lock}"
    )


def _process(pid: int) -> dict[str, float]:
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def _at_work(found: dict[str, Any], host: str) -> bool:
    if found.get("host", host) != host:
        return True
    try:
        there = psutil.Process(int(found["pid"])).status() != psutil.STATUS_ZOMBIE
        return there and _process(int(found["pid"])) == {"pid": found["pid"], "started": found["started"]}
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):  # gone, or never was one
        return False
