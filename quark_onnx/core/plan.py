"""The plan: everything the quantizer decided, in one immutable value, before a single node is edited.

    sites    ← place      where a quantizer stands, which rule put it there
    qparams  ← ranges     scale and zero point of every group of sites
    notes    ← both       why a node stayed float
    remarks  ← ranges     what the user should know of a tensor, e.g. a scale that was raised

Saved as `plan.json` + `arrays.npz` in one folder; `diff` compares two plans.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError
from quark_onnx.core.files import new_folder
from quark_onnx.core.formats import Format
from quark_onnx.core.frozen import FrozenDict

VERSION = 1

Role = Literal["activation", "constant", "weight", "bias"]


@dataclass(frozen=True)
class Skip:
    """How a rule says no: the reason is kept and shown to the user."""

    reason: str


@dataclass(frozen=True)
class Site:
    """A quantizer on a tensor.

    tensor  name of the activation or initializer
    role    activation: Q and DQ; constant: an initializer read as an activation; weight: integers and DQ;
            bias: int32 and DQ with scale = product of the scales of `factors`
    group   name of the tensor whose range counts; sites of one group share scale and zero point
    rule    the placement rule that put it here
    factors (input tensor, weight tensor) of a bias, else empty
    range   known beforehand, e.g. (0, 1) behind a Softmax; None: observed
    """

    tensor: str
    role: Role
    format: Format
    group: str
    rule: str
    factors: tuple[str, ...] = ()
    range: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale and zero point: scalars, or one per channel. v ≈ (q − zero_point) · scale."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]

    def same(self, other: QParams) -> bool:
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)


@dataclass(frozen=True, eq=False)
class Plan:
    """What the quantized model will be. Each field has one writer; a later stage adds, it never edits.

    model    fingerprint of the prepared float model that the plan belongs to
    sites    by tensor name
    nodes    quantized node → the tensors that must carry a quantizer for it to run on integers
    notes    node that stays float → the reason
    qparams  by group name
    remarks  tensor → what was unusual about it
    """

    model: str
    sites: Mapping[str, Site] = field(default_factory=dict)
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    qparams: Mapping[str, QParams] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("sites", "nodes", "notes", "qparams", "remarks"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))

    def qparams_of(self, tensor: str) -> QParams:
        """Scale and zero point of a tensor that has a site."""
        return self.qparams[self.sites[tensor].group]

    def without(self, reasons: Mapping[str, str]) -> Plan:
        """The plan with the groups in `reasons` left float, and every node that needs one of them."""
        bad = {tensor: reasons[site.group] for tensor, site in self.sites.items() if site.group in reasons}
        nodes = {node: tensors for node, tensors in self.nodes.items() if not bad.keys() & set(tensors)}
        notes = dict(self.notes)
        for node, tensors in self.nodes.items():
            if node not in nodes:
                notes[node] = next(bad[tensor] for tensor in tensors if tensor in bad)
        used = {tensor for tensors in nodes.values() for tensor in tensors}
        sites = {tensor: site for tensor, site in self.sites.items() if tensor in used}
        groups = {site.group for site in sites.values()}
        qparams = {group: q for group, q in self.qparams.items() if group in groups}
        return replace(self, sites=sites, nodes=nodes, notes=notes, qparams=qparams)

    def save(self, folder: str | Path) -> Path:
        """Write `plan.json` and `arrays.npz` into `folder`, which must not exist or be an earlier plan."""
        arrays = {f"{group}/{kind}": getattr(q, kind) for group, q in self.qparams.items() for kind in _KINDS}
        with new_folder(Path(folder), replaces="plan.json") as temporary:
            (temporary / "plan.json").write_text(json.dumps(self._document(), indent=1) + "\n", encoding="utf-8")
            np.savez(temporary / "arrays.npz", **arrays)
        return Path(folder)

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"version": VERSION, "model": self.model}
        document["sites"] = [asdict(site) for site in self.sites.values()]
        return document | {name: dict(getattr(self, name)) for name in ("nodes", "notes", "remarks")}

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """Read a plan that `save` wrote.

        Raises:
            PlanError: files are missing, of another version, or malformed.
        """
        path = Path(folder) / "plan.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.get("version") != VERSION:
                raise PlanError(f"{path} has version {document.get('version')!r}; this release reads {VERSION}")
            sites = [_site(entry) for entry in document["sites"]]
            with path.with_name("arrays.npz").open("rb") as file, np.load(file) as arrays:
                groups = {site.group for site in sites if f"{site.group}/scale" in arrays}
                qparams = {g: QParams(arrays[f"{g}/scale"], arrays[f"{g}/zero_point"]) for g in sorted(groups)}
            nodes = {node: _listed(tensors) for node, tensors in document["nodes"].items()}
            by_tensor = {site.tensor: site for site in sites}
            if unknown := {*chain(*nodes.values(), *(site.factors for site in sites))} - by_tensor.keys():
                raise ValueError(f"no site for tensor {min(unknown)!r}")
            return cls(document["model"], by_tensor, nodes, document["notes"], qparams, document["remarks"])
        except FileNotFoundError as error:
            raise PlanError(
                f"no plan in {folder}: {error.filename} is missing; make one with `quark-onnx plan`"
            ) from error
        except _MALFORMED as error:
            raise PlanError(f"{folder} holds no plan that quark_onnx wrote: {error!r}; make a new one") from error


_KINDS = ("scale", "zero_point")
_MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)


def _listed(tensors: object) -> tuple[str, ...]:
    if not isinstance(tensors, list):
        raise ValueError(f"{tensors!r} is no list of tensors")
    return tuple(tensors)


def _site(entry: dict[str, Any]) -> Site:
    known = None if entry["range"] is None else tuple(entry["range"])
    changes = {"format": Format(**entry["format"]), "factors": tuple(entry["factors"]), "range": known}
    site = Site(**{**entry, **changes})
    if site.role not in get_args(Role) or not 2 <= site.format.bits <= 32:
        raise ValueError(f"site {site.tensor!r} has role {site.role!r} and {site.format.bits} bits")
    return site


def diff(old: Plan, new: Plan) -> list[str]:
    """The differences of two plans, one line each; empty when they decide the same."""
    lines = [] if old.model == new.model else [f"model: {old.model} → {new.model}"]
    for kind in ("sites", "nodes", "notes", "remarks"):
        before, after = getattr(old, kind), getattr(new, kind)
        lines += [f"− {kind} {name}" for name in before if name not in after]
        lines += [f"+ {kind} {name}" for name in after if name not in before]
        lines += [f"~ {kind} {n}: {before[n]} → {after[n]}" for n in before if n in after and before[n] != after[n]]
    lines += [f"− qparams {group}: {_show(p)}" for group, p in old.qparams.items() if group not in new.qparams]
    for group, q in new.qparams.items():
        p = old.qparams.get(group)
        if p is None:
            lines.append(f"+ qparams {group}: {_show(q)}")
        elif not p.same(q):
            lines.append(f"~ qparams {group}: {_show(p)} → {_show(q)}")
    return lines


def _show(q: QParams) -> str:
    if q.scale.ndim:
        return f"{q.scale.size} scales {q.scale.min():.6g}..{q.scale.max():.6g}"
    return f"scale {float(q.scale):.6g} zero_point {int(q.zero_point)}"
