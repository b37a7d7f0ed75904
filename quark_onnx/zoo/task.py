"""What a worker does with one entry: look whether it is done, run its process, publish what became of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quark_onnx.core.json_writing import json_text
from quark_onnx.core.visible_text import visible
from quark_onnx.zoo.entry import Entry
from quark_onnx.zoo.process_watch import Ending, Limits, run_child
from quark_onnx.zoo.result_address import address
from quark_onnx.zoo.rows import Cost, Outcome, Row, row_of
from quark_onnx.zoo.store import COST, LOG, RESULT, Store, write_result

ATTEMPTS = 2
"""A crash, a hang or too little memory may be a matter of luck: once more, then it counts."""

TAIL = 40
"""Lines of the log that the row repeats."""

STOPPED = "the run was stopped"

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """An entry, where its outputs go, what its process may use, and whether it is to make a page."""

    entry: Entry
    store: Store
    limits: Limits
    pages: bool = False

    @property
    def row(self) -> Row:
        """The row of a model of which nothing is known yet."""
        return Row(self.entry.name, self.entry.shown_input, "failed")

    def run(self, tell: Tell) -> Outcome:
        """Everything there is to do for the entry. Never raises because of the model."""
        entry, row = self.entry, self.row
        if self.store.stopped():
            return Outcome(replace(row, status="stopped", reason=STOPPED))
        if not Path(entry.input).is_file():
            gone = f"model {entry.input} does not exist; mend {entry.place}, or copy it there"
            return self._unstarted("input", gone)
        tell({"stage": "hash"})
        try:
            row = replace(row, address=address(entry))
        except OSError as error:
            return self._unstarted("input", _cannot_read(error))
        if (kept := self.store.kept(entry.name, row.address, pages=self.pages)) is not None:
            return kept
        return self._made(row, tell)

    def _made(self, row: Row, tell: Tell) -> Outcome:
        seconds, peak = 0.0, 0
        for attempt in range(1, ATTEMPTS + 1):
            folder = self._folder()
            ending = run_child(folder, self.limits, self.store.stopped, tell, pages=self.pages)
            seconds, peak = round(seconds + ending.seconds, 3), max(peak, ending.peak_bytes)
            complete = (folder / "out" / RESULT).exists()  # what crashed after that was the page
            if complete or ending.kind == "stopped" or attempt == ATTEMPTS:
                break
            shutil.rmtree(folder)
        cost = Cost(seconds, ending.status.get("seconds", {}), peak, attempt, self.pages)
        if ending.kind == "stopped" or self.store.stopped():  # another run may be at work in the folder by now
            shutil.rmtree(folder, ignore_errors=True)
            return Outcome(replace(row, status="stopped", stage=ending.stage, reason=STOPPED))
        if complete:
            return self._published(folder, row, cost)
        return self._failed(replace(row, stage=ending.stage, reason=_reason(ending, attempt)), cost, folder)

    def _folder(self) -> Path:
        """A new folder with the entry for the process to read."""
        folder = Path(tempfile.mkdtemp(prefix=f"{self.entry.name}-", dir=self.store.temporary))
        entry, goal = self.entry, self.entry.goal
        if goal is not None:
            entry = replace(entry, goal=replace(goal, trials=str(self.store.searches / entry.name)))
        (folder / "entry.json").write_text(entry.to_json(), encoding="utf-8")
        return folder

    def _published(self, folder: Path, row: Row, cost: Cost) -> Outcome:
        out, page = folder / "out", folder / "page"
        done = replace(row_of(json.loads((out / RESULT).read_text("utf-8"))), address=row.address)
        for file in page.iterdir() if page.is_dir() else ():
            if file.is_file():  # folders are what a crash left
                os.replace(file, out / file.name)
        log = "" if done.status == "good" else _tail(folder / LOG)
        return self._publish(out, Outcome(done, cost, log=log), folder)

    def lost(self, reason: str) -> Outcome:
        """A model whose worker did not do its work. Never raises: the disk may be full."""
        try:
            return self._unstarted("worker", reason)
        except OSError:
            return Outcome(replace(self.row, stage="worker", reason=reason))

    def _unstarted(self, stage: str, reason: str) -> Outcome:
        folder = self._folder()
        (folder / LOG).write_text(f"{stage}: {reason}\n", encoding="utf-8")
        return self._failed(replace(self.row, stage=stage, reason=reason), Cost(), folder)

    def _failed(self, row: Row, cost: Cost, folder: Path) -> Outcome:
        """A model without outputs: its row and its log are published."""
        out = folder / "failed"
        out.mkdir()
        return self._publish(out, Outcome(row, cost, log=_tail(folder / LOG)), folder)

    def _publish(self, out: Path, outcome: Outcome, folder: Path) -> Outcome:
        write_result(out, outcome.row)
        (out / COST).write_text(json_text(outcome.cost) + "\n", encoding="utf-8")
        if (folder / LOG).exists():
            with (
                (folder / LOG).open(encoding="utf-8", errors="replace") as log,
                (out / LOG).open("w", encoding="utf-8") as kept,
            ):
                kept.writelines(visible(line, keep="\n\t") for line in log)
        self.store.publish(out, outcome.row.name)
        shutil.rmtree(folder, ignore_errors=True)
        return outcome


def _cannot_read(error: OSError) -> str:
    return f"cannot read {error.filename}: {error.strerror or error}; see to its permissions"


def _reason(ending: Ending, attempts: int) -> str:
    """Crashes are told with how often it was tried."""
    return f"after {attempts} attempts: {ending.reason}"


_PASSING = re.compile(r"0x[0-9a-f]{6,}")


def _tail(log: Path) -> str:
    """The last lines of a log, addresses in memory left out."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return _PASSING.sub("0x…", "\n".join(visible(line, keep="\t") for line in lines[-TAIL:]))
