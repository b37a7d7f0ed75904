"""Which tensors share a scale: followers take the group of their leader, chains end at the first leader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quark_onnx.core.plan import Site


def grouped(sites: Mapping[str, Site], ties: Mapping[str, str]) -> dict[str, Site]:
    """The sites with their group set.

    A tie is dropped where the follower has a range that is known beforehand, or where it would close a circle.
    """
    kept = {follower: leader for follower, leader in ties.items() if sites[follower].range is None}
    return {name: replace(site, group=_leader(name, kept)) for name, site in sites.items()}


def _leader(name: str, ties: Mapping[str, str]) -> str:
    passed = {name}
    while name in ties and ties[name] not in passed:
        name = ties[name]
        passed.add(name)
    return name
