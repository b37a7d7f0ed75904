"""Scales of their own for the channels of weights that one scale would kill."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import PROTECTED, ProtectedRegion


def with_own_scales(plan: Plan, apart: Plan, weights: Collection[str]) -> Plan:
    """The sites of `plan`, these weights and the biases counted in their scales as in `apart`, a scale per channel."""
    sites = dict(plan.sites)
    for tensor, site in plan.sites.items():
        weight = tensor if site.role == "weight" else site.factors[1] if site.factors else ""
        if weight in weights and tensor in apart.sites:
            sites[tensor] = replace(site, format=apart.sites[tensor].format)
    return replace(plan, sites=sites)


def with_remarks(plan: Plan, region: ProtectedRegion) -> Plan:
    """The plan with a remark that says why these weights have scales of their own."""
    text = f"{PROTECTED}a scale per channel: {region.reason}"
    found = {tensor: "; ".join(t for t in (plan.remarks.get(tensor), text) if t) for tensor in region.tensors}
    return replace(plan, remarks={**plan.remarks, **found})
