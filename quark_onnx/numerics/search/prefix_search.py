"""How far a row can be gone down before a limit is missed, asking as little as possible: bisection.

    holds(n)  for n = yes it does, for n = no > yes it does not; in between it holds up to some n and then never again.
              ⌈log2(no − yes)⌉ questions find that n.

Where it holds again later, what is found is still an n that holds with one that does not right behind it.
"""

from __future__ import annotations

from collections.abc import Callable


def last_that_holds(holds: Callable[[int], bool], yes: int, no: int) -> int:
    """The largest n from `yes` to `no` − 1 that holds. `yes` does, and `no` does not: neither is asked for."""
    while no - yes > 1:
        middle = (yes + no) // 2
        yes, no = (middle, no) if holds(middle) else (yes, middle)
    return yes
