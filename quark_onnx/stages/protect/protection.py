"""The decision: which quantizers are taken out of a plan, so that no output is lost.

    judged      on a few samples, in the arithmetic that is written: what the worst output is worth, the worst of its
                slices included. Where that is not lost (`LOST`) nothing is done: fine-tuning and the user's choice of
                types are for the rest.
    blamed      the groups of quantizers that alone make much noise there (`noise_by_group`), the one first that makes
                most of it for the time it saves
    taken out   as few of them, in this order, as bring the worst output to `GOAL`, if what stays on integers is worth
                having; where nothing does that, those that cost next to nothing, if they help

What a node that is taken out leaves behind, quantizers that buy no integer kernel any more, goes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import POOR, ProtectedRegion
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.switchable_model import Switchable
from quark_onnx.graph import Model
from quark_onnx.stages.protect.integer_work import Work, work_of
from quark_onnx.stages.protect.noise_by_group import Noise, Outputs, Part, noisy_parts
from quark_onnx.stages.protect.regions import regions, told

SAMPLES = 4
"""That judge; those that blame are half of them."""

LOST = 10.0
"""dB below which an output, or a slice of it, is lost: noise of a tenth of the signal's power."""

GOAL = POOR
"""dB that the worst output is to have."""

QUIET = GOAL + 5
"""dB of noise from which on a group is not blamed: less than a third of what the goal leaves."""

WORTH_HAVING = 0.5
"""Share of the integer multiply-adds that stays, at least."""

CHEAP = 0.08, 0.03
"""Shares of the integer multiply-adds, and of the estimated time, that may be spent where the goal is out of reach."""

SMALL = 0.005
"""Share of the estimated time below which parts need not be told apart."""

HELPS = 3.0
"""dB that the worst output gains by what is spent so: half of its noise."""

Tidy = Callable[[Plan], Plan]


@dataclass(frozen=True, eq=False)
class Protection:
    """The plan without the harmful quantizers, and a record per region that became float."""

    plan: Plan
    regions: tuple[ProtectedRegion, ...] = ()


def protect(
    model: Model,
    plan: Plan,
    feeds: Sequence[Feed],
    tidy: Tidy,
    *,
    keep: Collection[str] = (),
    tuned: bool = False,
) -> Protection:
    """Take quantizers out of a plan that make an output worthless.

    Args:
        model: the float model that the plan belongs to.
        plan: with scales; nothing of it is tuned yet.
        feeds: some are looked at.
        tidy: takes out of a plan what buys no integer kernel.
        keep: nodes and tensors that stay quantized in any case.
        tuned: weights will be fine-tuned, and are not judged.

    Raises:
        DataError: the model fails on a sample.
    """
    few = feeds[:: max(1, len(feeds) // SAMPLES)][:SAMPLES]
    ignored = {tensor for tensor, site in plan.sites.items() if tuned and site.role == "weight"}
    outputs = Outputs(model, Switchable(model, plan), few)
    before = outputs.worth(ignored)[0]
    if before >= LOST:
        return Protection(plan)
    work = work_of(model, plan.nodes, few[0])
    search = Search(plan, outputs, tidy, work, ignored, _groups(plan, ignored, keep))
    search.blame()
    chosen = search.chosen(before)
    return Protection(search.without(chosen), tuple(regions(model, search, chosen))) if chosen else Protection(plan)


@dataclass
class Search:
    """What is known on the way.

    ignored  tensors that count as float
    groups   tensors of each group that may go, in the order of the graph
    noise    part → what it leaves of the worst output, alone
    """

    plan: Plan
    outputs: Outputs
    tidy: Tidy
    work: Work
    ignored: Collection[str]
    groups: dict[str, Sequence[str]]
    noise: dict[Part, Noise] = field(default_factory=dict)

    def blame(self) -> None:
        """Measure the noise of what may go."""
        few = math.ceil(len(self.outputs.feeds) / 2)
        self.noise = noisy_parts(self.outputs, self.groups, few, QUIET, self._small)

    def _small(self, part: Part) -> bool:
        return self.time(self.plan.without(dict.fromkeys(part, ""))) <= (1 + SMALL) * self.time(self.plan)

    def worth(self, plan: Plan) -> float:
        """Of the worst output under a plan with fewer sites, in dB."""
        return self.outputs.worth({*self.ignored, *(self.plan.sites.keys() - plan.sites.keys())})[0]

    def without(self, parts: Collection[Part]) -> Plan:
        """The plan without these parts, and without what has no use then."""
        reasons = {group: f"protected: {told(part, self.noise[part])}" for part in parts for group in part}
        return self.tidy(self.plan.without(reasons))

    def chosen(self, before: float) -> list[Part]:
        """The parts to take out, the most harmful ones first."""
        ranked = sorted(self.noise, key=self._harm, reverse=True)
        if not ranked:
            return []
        if self._reaches(ranked):
            fewest = ranked[: self._fewest(ranked)]
            if self.share_left(self.without(fewest)) >= WORTH_HAVING:
                return fewest
        cheap = self._cheap(ranked)
        return cheap if cheap and self.worth(self.without(cheap)) >= before + HELPS else []

    def _harm(self, part: Part) -> float:
        """Noise power for the time that is saved."""
        saved = self.time(self.without([part])) / self.time(self.plan) - 1
        return float(10 ** (-self.noise[part][0] / 10)) / max(saved, SMALL / 10)

    def _reaches(self, parts: Sequence[Part]) -> bool:
        return self.worth(self.without(parts)) >= GOAL

    def _fewest(self, ranked: Sequence[Part]) -> int:
        low, high = 0, len(ranked)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._reaches(ranked[:middle]) else (middle, high)
        return high

    def _cheap(self, ranked: Sequence[Part]) -> list[Part]:
        found: list[Part] = []
        products, time = CHEAP
        for part in ranked:
            plan = self.without([*found, part])
            if self.share_left(plan) >= 1 - products and self.time(plan) <= (1 + time) * self.time(self.plan):
                found.append(part)
        return found

    def share_left(self, plan: Plan) -> float:
        """Of the multiply-adds that ran on integers, how many still do."""
        whole, left = (self.work.on_integers(one.nodes) for one in (self.plan, plan))
        return left / whole if whole else 1.0

    def time(self, plan: Plan) -> float:
        """Estimated, in float multiply-adds."""
        return self.work.time(plan.nodes)


def _groups(plan: Plan, ignored: Collection[str], keep: Collection[str]) -> dict[str, Sequence[str]]:
    """Tensors of the groups that may go: none that is named, or that a node needs that is named."""
    held = {tensor for node, tensors in plan.nodes.items() if node in keep for tensor in tensors}.union(keep)
    groups: dict[str, list[str]] = {}
    for tensor, site in plan.sites.items():
        if site.role in ("activation", "constant", "weight") and tensor not in ignored:
            groups.setdefault(site.group, []).append(tensor)
    return {name: tensors for name, tensors in groups.items() if held.isdisjoint(tensors)}
