"""What of a quantized model exceeds a budget, in words: the figure of the worst output, and what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quark_onnx.core.records import Measured
from quark_onnx.core.settings.budget import Budget
from quark_onnx.engine.result_wording import kept_text

Outputs = Mapping[str, Measured]


def excess(
    budget: Budget, outputs: Outputs, before: float | None = None, after: float | None = None
) -> tuple[str, ...]:
    """A sentence for each part of the budget that is not kept, or that nothing is known of; empty: all is well.

    Args:
        outputs: what was measured of them; empty: there were no data.
        before, after: scores of the float model and of the quantized one; None: there is no evaluator.
    """
    return tuple(_score(budget, before, after)) + tuple(_ratios(budget, outputs)) + tuple(_classes(budget, outputs))


def _score(budget: Budget, before: float | None, after: float | None) -> Iterator[str]:
    if budget.max_drop is None:
        return
    if before is None or after is None:
        yield "without an evaluator there is no score, and max_drop is part of the budget; give an evaluator"
    elif budget.too_low(before, after):
        allowed = f"{budget.max_drop} of it" if isinstance(budget.max_drop, str) else f"{budget.max_drop:g}"
        yield f"the score falls by {before - after:.4g} ({before:.4g} → {after:.4g}), and may fall by {allowed}"


def _ratios(budget: Budget, outputs: Outputs) -> Iterator[str]:
    if budget.min_sqnr is None:
        return
    worth = {name: one.db for name, one in outputs.items() if one.db is not None}
    if not outputs:
        yield "without data the SQNR of the outputs is not known, and it is part of the budget; give data"
    elif not worth:
        yield "no output holds a value on these samples, and their SQNR is part of the budget; give other samples"
    elif worth[worst := min(worth, key=lambda name: worth[name])] < budget.min_sqnr:
        yield f"output {worst!r} {kept_text(outputs[worst])}, and should keep {budget.min_sqnr:g}"


def _classes(budget: Budget, outputs: Outputs) -> Iterator[str]:
    """Of the outputs that hold classes."""
    asked = [key for key in ("min_agreement", "max_kl") if getattr(budget, key) is not None]
    keys = f"{' and '.join(asked)} {'are' if len(asked) > 1 else 'is'}"
    same = {name: one.agreement for name, one in outputs.items() if one.agreement is not None}
    far = {name: one.kl for name, one in outputs.items() if one.kl is not None}
    if not asked:
        return
    if not outputs:
        yield f"without data it is not known how far classes agree, and {keys} part of the budget; give data"
    elif not same or not far:
        yield f"no output holds classes, and {keys} part of the budget; use min_sqnr in its place"
    else:
        least, most = min(same, key=lambda name: same[name]), max(far, key=lambda name: far[name])
        if budget.min_agreement is not None and same[least] < budget.min_agreement:
            found, asked_for = f"{same[least]:.2%}", f"{budget.min_agreement:.4g}"
            yield f"output {least!r} has the same arg-max in {found} of rows, and should in a share of {asked_for}"
        if budget.max_kl is not None and not far[most] <= budget.max_kl:
            yield f"output {most!r} has KL {far[most]:.3g} from the float one, and may have {budget.max_kl:g}"
