"""What a zoo tells of each model: a row that depends on nothing but its address, and what it cost this time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from quark_onnx.core.json_writing import plain
from quark_onnx.core.records import Measured, least_alike, worst_of

Status = Literal["good", "over budget", "failed", "stopped"]

STATUSES = ("good", "over budget", "failed", "stopped")


@dataclass(frozen=True)
class Row:
    """What became of one model; the same in every run.

    name      folder of its outputs
    input     the float model, as in the manifest
    status    good; over budget: quantized and written, but no configuration keeps the budget; failed: nothing but this
              row and the log; stopped: not done, because the run was stopped
    address   hash of what the result depends on
    stage     where it failed, or what is over budget was judged; empty if it is good
    reason    likewise: what is wrong, and the way out
    preset    the configuration that was chosen; of a search: what for, and the name of the point
    tries     what was tried: preset or point, dB of its worst output, agreement and KL of its classes, score, drop,
              bytes of the model, whether it is within the budget; or its error
    scores    of the evaluator: float, quantized; empty without one
    sqnr      dB by float output, as a whole, of the model that was written
    outputs   all that was measured of each output
    bytes     weights of the float and of the quantized model
    fused     by operator type: nodes on integers, and of how many
    samples   of calibration
    probes    which samples sqnr is of, see `Report`
    warnings  what the user should act on
    files     SHA-256 of the outputs by name
    """

    name: str
    input: str
    status: Status
    address: str = ""
    stage: str = ""
    reason: str = ""
    preset: str = ""
    tries: tuple[Mapping[str, Any], ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    sqnr: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, Measured] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    fused: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    samples: int = 0
    probes: str = ""
    warnings: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the model was quantized within its budget."""
        return self.status == "good"

    @property
    def least_sqnr(self) -> float | None:
        """What the worst output is worth in dB; None where none was measured."""
        return worst_of(self.outputs)

    @property
    def classes(self) -> Measured:
        """The output whose classes diverge most, if there are any."""
        return least_alike(self.outputs)

    @property
    def drop(self) -> float | None:
        """By how much the evaluator's score fell; None without one."""
        return self.scores["float"] - self.scores["quantized"] if "quantized" in self.scores else None


@dataclass(frozen=True)
class Cost:
    """What a model cost when it was made: nothing that two runs have in common.

    seconds     of its process, all attempts
    stages      seconds by stage of the configuration that was chosen
    peak_bytes  most memory that its process and those below it had, memory-mapped files left out
    attempts    1, or 2 after a crash
    pages       whether its page was to be made, too
    """

    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    attempts: int = 0
    pages: bool = False


@dataclass(frozen=True)
class Outcome:
    """A row as a run gives it.

    kept  made by an earlier run, and still right
    log   the last lines of the log of a model that failed
    """

    row: Row
    cost: Cost = field(default_factory=Cost)
    kept: bool = False
    log: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: the line in results.jsonl."""
        found: dict[str, Any] = plain({**asdict(self.row), **asdict(self.cost), "kept": self.kept, "log": self.log})
        return found


def row_of(document: Mapping[str, Any]) -> Row:
    """The row that `json_text` wrote; keys that are no field are passed over.

    Raises:
        TypeError, ValueError: it is something else.
    """
    known = {f.name for f in fields(Row)}
    values = {key: value for key, value in document.items() if key in known}
    sqnr = {name: float(value) for name, value in values.get("sqnr", {}).items()}
    outputs = {name: Measured.from_dict(one) for name, one in values.get("outputs", {}).items()}
    row = Row(
        **{
            **values,
            "sqnr": sqnr,
            "outputs": outputs,
            **{key: tuple(values.get(key, ())) for key in ("tries", "warnings")},
        }
    )
    if row.status not in STATUSES:
        raise ValueError(f"unknown status {row.status!r}")
    return row
