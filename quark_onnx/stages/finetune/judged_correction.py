"""Bias correction that has to prove itself: learned of some samples, judged on others, kept or taken back as a whole.

Moving each layer's mean error to zero nearly always raises the ratio of an output, and can still ruin a part of it: the
scores of a detector beside its boxes. So what decides is what the worst output is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import GOOD, Comparison, Correction, Measured, Tuning
from quark_onnx.core.settings.fast_finetune import FastFinetune, Nearest
from quark_onnx.engine.held_out_probes import held_out, spaced
from quark_onnx.engine.kept_feeds import Kept, samples_in
from quark_onnx.engine.output_chance import all_below, below

JUDGES = 8
"""Samples that judge, at most, unless a feed holds more: both models run on them as they are written, which is slow."""

TAUGHT = 24
"""Samples that means of errors are learned of: 152 give MobileNet .3 dB more, and take four times as long."""

POSITIONS = 2000
"""Output positions of a layer over all samples: a mean is known to 2.2 % of its deviation."""


Judge = Callable[[Plan], tuple[Comparison, Sequence[Comparison]]]
"""The outputs under a plan, over all samples that judge, and for each alone."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What tuning is to do and learn of, and the samples that judge it.

    judging  whether bias correction is judged; without judges it is left out
    """

    options: FastFinetune
    taught: Kept
    judges: Kept
    judging: bool = False


def lesson(options: FastFinetune, feeds: Kept) -> Lesson:
    """Feeds apart, where bias correction is to be judged; too few leave no judges."""
    none = feeds[:0]
    if not (isinstance(options, Nearest) and options.judged):
        return Lesson(options, feeds, none)
    rows = [samples_in(feed) for feed in feeds]
    chosen = held_out(rows, len(rows))
    judges = [chosen[index] for index in spaced(len(chosen), min(JUDGES, len(chosen)))]
    others = [index for index in range(len(rows)) if index not in judges]
    if judges and not options.scale_search:  # a search needs all that there is to learn
        options = replace(options, positions=POSITIONS)
        count = -(-TAUGHT * len(others) // sum(rows[index] for index in others))
        others = [others[index] for index in spaced(len(others), min(count, len(others)))]
    return Lesson(options, feeds.at(others), feeds.at(judges), judging=True)


def judged(
    learns: Lesson, before: Plan, tune: Callable[[FastFinetune], Tuning], judge: Judge
) -> tuple[Tuning, Correction | None]:
    """Tuning whose biases have to help; None: they are not judged, or none has moved.

    Biases are kept where the worst output gains over all samples, and sample by sample, both by more than chance makes.
    Nothing is corrected where no accuracy is lost without, or there is nothing to judge by.
    """
    if not learns.judging:
        return tune(learns.options), None
    plain, singles = judge(before) if learns.judges else (Comparison(), ())
    first, options = _worst(plain), learns.options
    if first.db is None or first.db >= GOOD:
        searched = tune(replace(options, update_bias=False)) if options.scale_search else Tuning(before, (), {})
        return searched, Correction(False, first.db, None, plain.samples)
    done = tune(options)
    if all(value is before.values.get(name) for name, value in done.plan.values.items()):
        return done, None
    without = replace(done.plan, values=before.values)
    if options.scale_search:
        plain, singles = judge(without)
    corrected, corrected_singles = judge(done.plan)
    first, second = _worst(plain), _worst(corrected)
    kept = below(first, second) and all_below(singles, corrected_singles)
    found = Correction(kept, first.db, second.db, plain.samples)
    return done if kept else _taken_back(done, without), found


def _taken_back(done: Tuning, without: Plan) -> Tuning:
    """What is left when no bias has moved."""
    records = tuple(
        replace(one, choice="raw", accepted=False, loss_after=one.loss_before, held_after=one.held_before)
        if one.choice == "untuned"
        else one
        for one in done.records
    )
    return replace(done, plan=without, records=records)


def _worst(found: Comparison) -> Measured:
    """The output that is worth the least."""
    known = [one for one in found.outputs.values() if one.db is not None]
    return min(known, key=lambda one: one.db or 0.0, default=Measured())
