"""The decision: which quantizers are taken out of a plan, so that no output is lost.

    judged      on a few samples, in the arithmetic that is written: what the worst output is worth, the worst of its
                slices included. Where that has `GOAL` nothing is done.
    blamed      the groups of quantizers that alone make much noise there (`noise_by_group`), the one first that makes
                most of it for the time it saves
    taken out   where the output is lost (`LOST`), as few of them, in this order, as bring it to `GOAL`, if what stays
                on integers is worth having; else those that cost little, if they halve the noise; and of weights,
                which fine-tuning mends, none

What a node that is taken out leaves behind, quantizers that buy no integer kernel any more, goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import LOST, POOR, PROTECTED, ProtectedRegion
from quark_onnx.engine.apply_plan import has_scale
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.kept_feeds import telling
from quark_onnx.engine.output_judge import OutputJudge, Worth
from quark_onnx.engine.switchable_model import Switchable, without_switches
from quark_onnx.graph import Model
from quark_onnx.numerics.search.prefix_search import last_that_holds
from quark_onnx.stages.protect.integer_work import Work, work_of
from quark_onnx.stages.protect.noise_by_group import Judge, Part, noisy_parts
from quark_onnx.stages.protect.own_scales import with_remarks
from quark_onnx.stages.protect.regions import own_scales_region, regions, told

SAMPLES = 8
"""That judge: on 4 of them the worst output of a text detector is uncertain by 2 dB."""

FIRST = 2
"""That blame: what a group does alone is looked at a hundred times, and only for an order."""

GOAL = POOR
"""dB that the worst output is to have."""

QUIET = GOAL + 5
"""dB of noise from which on a group is not blamed: less than a third of what the goal leaves."""

WORTH_HAVING = 0.5
"""Share of the integer multiply-adds that stays, at least, unless it is a `FEW` faults that cost more."""

FEW = 3
"""Parts that are taken out at whatever price: without them the model is right, with them it is worth nothing."""

CHEAP = 0.08, 0.12
"""Shares of the integer multiply-adds, and of the estimated time, that may be spent where no output is lost, or where
none can be brought to the goal."""

SMALL = 0.005
"""Share of the estimated time below which parts need not be told apart."""

HELPS = 3.0
"""dB that the worst output gains by what is spent so: half of its noise."""


@dataclass(frozen=True)
class Hands:
    """What may be done to the plan.

    tidy        takes out what buys no integer kernel any more
    own_scales  the plan as it came, these weights with a scale per channel
    keep        nodes and tensors that stay quantized in any case
    """

    tidy: Callable[[Plan], Plan] = lambda plan: plan
    own_scales: Callable[[Collection[str]], Plan] | None = None
    keep: Collection[str] = ()


@dataclass(frozen=True, eq=False)
class Protection:
    """The plan without the harmful quantizers, and a record per region that became float."""

    plan: Plan
    regions: tuple[ProtectedRegion, ...] = ()


def protect(
    model: Model,
    plan: Plan,
    feeds: Sequence[Feed],
    hands: Hands | None = None,
    *,
    tuned: bool = False,
    counted: Counted | None = None,
) -> Protection:
    """Take quantizers out of a plan that make an output worthless.

    Args:
        model: the float model that the plan belongs to.
        plan: with scales; nothing of it is tuned yet.
        feeds: some are looked at.
        hands: what may be done.
        tuned: weights will be fine-tuned, and are not judged.
        counted: which positions of the outputs are looked at; None: all.

    Raises:
        DataError: the model fails on a sample.
    """
    hands = hands or Hands()
    usable = telling(feeds)
    few = [feeds[i] for i in usable[:: max(1, len(usable) // SAMPLES)][:SAMPLES]]
    outputs = OutputJudge(model, few, counted)
    search = _begun(model, plan, outputs, hands, tuned=tuned)
    if search.before >= GOAL:
        return Protection(plan)
    search.blame()
    apart = _own_scales(model, search, outputs, hands)
    if apart is None:
        return _without_harm(model, search)
    told = own_scales_region(search, apart)
    apart.plan = with_remarks(apart.plan, told)
    if apart.before >= GOAL:
        return Protection(apart.plan, (told,))
    apart.blame()
    done = _without_harm(model, apart)
    return Protection(done.plan, (told, *done.regions))


def _without_harm(model: Model, search: Search) -> Protection:
    """What harms most for what it buys becomes float."""
    chosen = search.chosen()
    if not chosen:
        return Protection(search.plan)
    return Protection(search.without(chosen), tuple(regions(model, search, chosen)))


def _begun(model: Model, plan: Plan, outputs: OutputJudge, hands: Hands, *, tuned: bool = False) -> Search:
    """A search with the worth of the whole plan."""
    ignored = {tensor for tensor, site in plan.sites.items() if tuned and site.role == "weight"}
    switchable = cache(partial(Switchable, model, plan))  # most plans need none

    def judge(off: Collection[str], samples: int | None) -> Worth:
        return outputs.worth(partial(switchable(), off=off), samples)

    before = judge(ignored, None) if ignored else outputs.worth(without_switches(model, plan))
    work = partial(work_of, model, plan.nodes, outputs.feeds[0])
    return Search(plan, judge, hands.tidy, work, ignored, _groups(plan, ignored, hands.keep), before[0])


def _own_scales(model: Model, search: Search, outputs: OutputJudge, hands: Hands) -> Search | None:
    """A search with a scale per channel for the weights that are blamed, if that helps."""
    sites = search.plan.sites
    blamed = [group for part in search.noise for group in part if group in sites]
    weights = [group for group in blamed if sites[group].role == "weight" and sites[group].format.axis is None]
    if not weights or hands.own_scales is None or search.before >= LOST:
        return None
    other = _begun(model, hands.own_scales(weights), outputs, hands)
    return other if other.before >= search.before + HELPS else None


@dataclass
class Search:
    """What is known on the way.

    judge    what the worst output is worth without the quantizers of some tensors, on so many samples
    ignored  tensors that count as float
    groups   tensors of each group that may go, in the order of the graph
    before   dB of the worst output
    noise    part → what it leaves of the worst output, alone
    """

    plan: Plan
    judge: Judge
    tidy: Callable[[Plan], Plan]
    count: Callable[[], Work]
    ignored: Collection[str]
    groups: dict[str, Sequence[str]]
    before: float
    noise: dict[Part, Worth] = field(default_factory=dict)

    @cached_property
    def work(self) -> Work:
        """What the nodes of the plan do."""
        return self.count()

    def blame(self) -> None:
        """Measure the noise of what may go."""
        tensors = self.plan.sites.keys()
        self.noise = noisy_parts(lambda on: self.judge(tensors - on, FIRST), self.groups, QUIET, self._small)

    def _small(self, part: Part) -> bool:
        return self.time(self.plan.without(dict.fromkeys(part, ""))) <= (1 + SMALL) * self.time(self.plan)

    def worth(self, plan: Plan) -> float:
        """Of the worst output under a plan with fewer sites, in dB."""
        return self.judge({*self.ignored, *(self.plan.sites.keys() - plan.sites.keys())}, None)[0]

    def without(self, parts: Collection[Part]) -> Plan:
        """The plan without these parts, and without what has no use then."""
        reasons = {group: PROTECTED + told(part, self.noise[part]) for part in parts for group in part}
        return self.tidy(self.plan.without(reasons))

    def chosen(self) -> list[Part]:
        """The parts to take out, the most harmful ones first."""
        ranked = sorted(self.noise, key=self._harm, reverse=True)
        if not ranked:
            return []
        if self.before < LOST and self._reaches(ranked):
            fewest = ranked[: self._fewest(ranked)]
            left = self.share_left(self.without(fewest))
            if left >= WORTH_HAVING or len(fewest) <= FEW:
                return fewest
        cheap = self._cheap(ranked)
        return cheap if cheap and self.worth(self.without(cheap)) >= self.before + HELPS else []

    def _harm(self, part: Part) -> float:
        """Noise power for the time that is saved."""
        saved = self.time(self.without([part])) / self.time(self.plan) - 1
        return float(10 ** (-self.noise[part][0] / 10)) / max(saved, SMALL / 10)

    def _reaches(self, parts: Sequence[Part]) -> bool:
        return self.worth(self.without(parts)) >= GOAL

    def _fewest(self, ranked: Sequence[Part]) -> int:
        """The smallest number of first parts without which the goal is reached, as it is without all."""
        return 1 + last_that_holds(lambda n: not self._reaches(ranked[:n]), 0, len(ranked))

    def _cheap(self, ranked: Sequence[Part]) -> list[Part]:
        found: list[Part] = []
        products, time = CHEAP
        for part in ranked:
            if self.before >= LOST and all(self._is_weight(group) for group in part):
                continue
            plan = self.without([*found, part])
            if self.share_left(plan) >= 1 - products and self.time(plan) <= (1 + time) * self.time(self.plan):
                found.append(part)
        return found

    def _is_weight(self, group: str) -> bool:
        return group in self.plan.sites and self.plan.sites[group].role == "weight"

    def share_left(self, plan: Plan) -> float:
        """Of the multiply-adds that ran on integers, how many still do."""
        whole, left = (self.work.on_integers(one.nodes) for one in (self.plan, plan))
        return left / whole if whole else 1.0

    def time(self, plan: Plan) -> float:
        """Estimated, in float multiply-adds, of which there is one at least."""
        return max(1.0, self.work.time(plan.nodes))


def _groups(plan: Plan, ignored: Collection[str], keep: Collection[str]) -> dict[str, Sequence[str]]:
    """Tensors of the groups that may go: none that a node needs that is named, or that needs a tensor that is."""
    kept = [tensors for node, tensors in plan.nodes.items() if not {node, *tensors}.isdisjoint(keep)]
    held = {tensor for tensors in kept for tensor in tensors}
    groups: dict[str, list[str]] = {}
    for tensor, site in plan.sites.items():
        if has_scale(site) and tensor not in ignored:
            groups.setdefault(site.group, []).append(tensor)
    return {name: tensors for name, tensors in groups.items() if held.isdisjoint(tensors)}
