"""Which samples teach, and which judge what was learned: those choose among configurations, and must not flatter any.

Of N ≥ 20 samples min(64, N // 5) judge, spread evenly. The others go to the pipeline, which holds some of them out
again: these prove the model that is chosen, and had no part in the choice.
"""

from __future__ import annotations

from dataclasses import dataclass

from quark_onnx.engine.calibration_data import CalibrationData
from quark_onnx.engine.counted_positions import Counted, without_padding
from quark_onnx.engine.held_out_probes import LEAST, held_out
from quark_onnx.engine.kept_feeds import Kept, keep, samples_in, telling
from quark_onnx.engine.runner import fit
from quark_onnx.job import Job

MOST = 64
"""Samples that judge: KL of a classifier is then uncertain by a tenth, and less between two models."""


@dataclass(frozen=True, eq=False)
class JudgingSamples:
    """The samples of a model.

    taught    as they were given, for the pipeline
    inside    the same without padding where it can be cut, and in float32: to look into the model with
    judges    in float32
    counted   which positions of outputs are judged; None: all
    warnings  where the same samples teach and judge
    """

    taught: Kept
    inside: Kept
    judges: Kept
    counted: Counted | None
    warnings: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, int]:
        """Samples that teach, and that judge."""
        taught, judges = (sum(map(samples_in, feeds)) for feeds in (self.taught, self.judges))
        return taught, judges


def judging_samples(job: Job, data: CalibrationData) -> JudgingSamples:
    """The samples apart.

    Raises:
        DataError: a sample does not fit, or there is none.
    """
    feeds = keep(data)
    seen = feeds if job.widened is None else keep(fit(feed, job.plain) for feed in feeds)
    rows = [samples_in(feed) for feed in feeds]
    usable = telling(feeds)
    chosen = held_out(rows, len(rows), usable if 2 * len(usable) > len(rows) else None, MOST)
    others = [i for i in range(len(feeds)) if i not in chosen]
    taught, inside = feeds.at(others), seen.at(others)
    judges = seen.at(chosen) if chosen else inside[:MOST]
    few = f"{sum(rows)} samples: the same teach and judge, which flatters; {LEAST} and more are told apart"
    warnings = (*data.warnings, *(() if chosen else (few,)))
    if job.mask is None:
        return JudgingSamples(taught, inside, judges, None, warnings)
    inside, counted = without_padding(job.plain, data.inputs, seen, inside, job.mask)
    counted = job.counted(counted, judges)
    return JudgingSamples(taught, inside, judges, counted, warnings)
