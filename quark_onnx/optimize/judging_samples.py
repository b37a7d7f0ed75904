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

    taught    all of each, in the float types of the model as float32, for the pipeline
    inside    some of them, without padding where it can be cut: to look into the model with
    judges    the others, likewise
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
    feeds = keep(fit(feed, job.plain) for feed in data)
    rows = [samples_in(feed) for feed in feeds]
    usable = telling(feeds)
    chosen = held_out(rows, len(rows), usable if 2 * len(usable) > len(rows) else None, MOST)
    taught = feeds.at([i for i in range(len(feeds)) if i not in chosen])
    judges = feeds.at(chosen) if chosen else taught[:MOST]
    few = f"{sum(rows)} samples: the same teach and judge, which flatters; {LEAST} and more are told apart"
    warnings = (*data.warnings, *(() if chosen else (few,)))
    if job.mask is None:
        return JudgingSamples(taught, taught, judges, None, warnings)
    inside, counted = without_padding(job.plain, data.inputs, feeds, taught, job.mask)
    counted = job.counted(counted, judges)
    return JudgingSamples(taught, inside, judges, counted, warnings)
