"""What SmoothQuant did, in words: how many activations were smoothed, and why others were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from quark_onnx.core.records import SmoothRecord


def smoothed_lines(records: Sequence[SmoothRecord]) -> list[str]:
    """`3 of 8 activations, alpha 0.3 to 0.9; …`, and a line for each reason to leave some alone."""
    done = sorted((one for one in records if one.alpha), key=lambda one: one.alpha)
    reasons = Counter(one.reason.partition(":")[0] for one in records if not one.alpha)
    lines = []
    if done:
        low, high = done[0].alpha, done[-1].alpha
        alphas = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        lines.append(f"{len(done)} of {len(records)} activations, alpha {alphas}{_gained(done)}")
    return lines + [f"{count} left alone: {reason}" for reason, count in reasons.most_common()]


def _gained(done: Sequence[SmoothRecord]) -> str:
    """What the products of the activation in the middle gain."""
    gains = [one.after - one.before for one in done if one.before is not None and one.after is not None]
    return f"; products gain {median(gains):.1f} dB, by the middle one" if gains else ""
