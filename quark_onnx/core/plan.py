"""The plan: everything the quantizer decided, in one immutable value, before a single node is edited.

    factors, shifts  ← equalize   what weights and biases of the float model were multiplied by, and raised by
    factors, smoothed ← smooth    … and what products read activations multiplied by
    sites            ← place      where a quantizer stands, which rule put it there
    qparams          ← ranges     scale and zero point of every group of sites
    notes            ← both       why a node stayed float
    remarks          ← ranges     what the user should know of a tensor, e.g. a scale that was raised
    rounded          ← rounding   integers of weights whose neighbours bound each other
    codes, values    ← finetune   tuned integers of weights, tuned float values of biases
    bodies           ← pipeline   the plans of If branches and of Loop and Scan bodies

Saved as `plan.json` + `arrays.npz` in one folder, plans of bodies in folders inside; `plan_diff` compares two.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.atomic_files import new_folder
from quark_onnx.core.errors import PlanError, reading
from quark_onnx.core.frozen_dict import FrozenDict
from quark_onnx.core.json_reading import json_of
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan_checks import entry_fault, format_fault, range_fault
from quark_onnx.core.shown.card import Card, Shown
from quark_onnx.core.shown.plan_card import TensorRow, plan_card

VERSION = 1

BODIES = "bodies"
"""Folder of the plans of bodies, numbered in the order in which `plan.json` lists them."""

FILES = ("plan.json", "arrays.npz", "config.json", BODIES)
"""What the folder of a plan may hold."""

Role = Literal["activation", "dynamic", "constant", "weight", "bias"]

TABLE = "table"
"""The rule of a weight whose rows are looked up: integers come out, and a scale for each."""

Ends = float | tuple[float, ...]


@dataclass(frozen=True)
class Skip:
    """How a rule says no: the reason is kept and shown to the user."""

    reason: str


@dataclass(frozen=True)
class Site:
    """A quantizer on a tensor.

    tensor  name of the activation or initializer
    role    activation: Q and DQ; dynamic: quantized at run time, without scales in the plan; constant: an initializer
            read as an activation; weight: integers and DQ; bias: integers and DQ, with 32 bits the scale is the
            product of the scales of `factors`, otherwise its own
    group   name of the tensor whose range counts; sites of one group share scale and zero point
    rule    the placement rule that put it here
    factors (input tensor, weight tensor) of an int32 bias, else empty
    range   known beforehand, e.g. (0, 1) behind a Softmax, one pair or (weights) one per channel; None: observed
    low     the lower end of an observed range, where that much is known beforehand; None: observed as well
    floor   values below it need no codes of their own: an observed range begins there at the lowest
    method  range method; None: the configuration's
    beside  the tensor is computed in float: nodes that do not list it in `Plan.nodes` read that, as do model outputs
    handed  what makes the tensor only hands on codes that have this scale already: no quantizer is written
    """

    tensor: str
    role: Role
    format: Format
    group: str
    rule: str
    factors: tuple[str, ...] = ()
    range: tuple[Ends, Ends] | None = None
    method: str | None = None
    low: float | None = None
    floor: float | None = None
    beside: bool = False
    handed: bool = False


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale and zero point: scalars, or one per channel. v ≈ (q − zero_point) · scale."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]

    def same(self, other: QParams) -> bool:
        """Whether both hold equal numbers."""
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)


@dataclass(frozen=True, eq=False)
class Coded:
    """A weight's integers, in any integer type that holds them, and their scale. The zero point is that of the plan."""

    codes: NDArray[np.signedinteger | np.unsignedinteger]
    scale: NDArray[np.float32]

    def same(self, other: Coded) -> bool:
        """Whether both hold equal numbers."""
        return np.array_equal(self.codes, other.codes) and np.array_equal(self.scale, other.scale)


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Shown):
    """What the quantized model will be. Each field has one writer; a later stage adds, it never edits.

    model    fingerprint of the float model that the plan belongs to: prepared, and equalized by `factors` and `shifts`
    sites    by tensor name
    nodes    quantized node → the tensors that must carry a quantizer for it to run on integers
    notes    node that stays float → the reason
    qparams  by group name
    remarks  tensor → what was unusual about it
    factors  initializer → array it was multiplied by
    shifts   initializer → array that was added to it
    smoothed activation → array that a Mul in front of the products which read it multiplies it by
    rounded  weight → its integers, where rounding to nearest does not do
    codes    weight → its tuned integers; a weight without either is rounded to nearest
    values   bias, or parameter of a normalization → its tuned float value
    bodies   body of control flow (`If name/then_branch`) → its plan: it is a model of its own
    """

    model: str
    sites: Mapping[str, Site] = field(default_factory=dict)
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    qparams: Mapping[str, QParams] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    factors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    shifts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    smoothed: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    rounded: Mapping[str, Coded] = field(default_factory=dict)
    codes: Mapping[str, Coded] = field(default_factory=dict)
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    bodies: Mapping[str, Plan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("sites", "nodes", "notes", "remarks", "bodies", *ARRAYS):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))

    def qparams_of(self, tensor: str) -> QParams:
        """Scale and zero point of a tensor that has a site; a weight that has codes has their scale."""
        chosen, coded = self.qparams[self.sites[tensor].group], self.coded(tensor)
        return chosen if coded is None else QParams(coded.scale, np.broadcast_to(chosen.zero_point, coded.scale.shape))

    def reads_codes(self, node: str, tensor: str) -> bool:
        """Whether a node reads the codes of an activation that has a quantizer, and not floats that are kept beside."""
        return not self.sites[tensor].beside or tensor in self.nodes.get(node, ())

    def coded(self, tensor: str) -> Coded | None:
        """The integers of a weight, the tuned ones first; None: it is rounded to nearest."""
        return self.codes.get(tensor, self.rounded.get(tensor))

    def without(self, reasons: Mapping[str, str]) -> Plan:
        """The plan with the groups in `reasons` left float, and every node that needs one of them."""
        bad = {tensor: reasons[site.group] for tensor, site in self.sites.items() if site.group in reasons}
        nodes = {node: tensors for node, tensors in self.nodes.items() if not bad.keys() & set(tensors)}
        gone = {node: tensors for node, tensors in self.nodes.items() if node not in nodes}
        notes = {node: next(bad[tensor] for tensor in tensors if tensor in bad) for node, tensors in gone.items()}
        return self.keeping(nodes, notes)

    def without_named(self, names: Collection[str]) -> Plan:
        """The plan with these nodes left float, and the groups of these tensors with every node that needs them."""
        reason = "extra option Protect asks for it"
        plan = self.without({site.group: reason for tensor, site in self.sites.items() if tensor in names})
        nodes = {node: tensors for node, tensors in plan.nodes.items() if node not in names}
        return plan.keeping(nodes, {node: reason for node in plan.nodes if node in names})

    def keeping(self, nodes: Mapping[str, Sequence[str]], reasons: Mapping[str, str]) -> Plan:
        """The plan with these quantized nodes alone, and what they need; `reasons` say why others are float now."""
        used = {tensor for tensors in nodes.values() for tensor in tensors}
        sites = {tensor: site for tensor, site in self.sites.items() if tensor in used}
        groups = {site.group for site in sites.values()}
        qparams = {group: q for group, q in self.qparams.items() if group in groups}
        rounded, codes = ({t: c for t, c in kept.items() if t in sites} for kept in (self.rounded, self.codes))
        kept = {node: tuple(tensors) for node, tensors in nodes.items()}
        notes = {**self.notes, **reasons}
        return replace(self, sites=sites, nodes=kept, notes=notes, qparams=qparams, rounded=rounded, codes=codes)

    def fault(self) -> str | None:
        """The first entry whose numbers no plan may have, and what is wrong with them; None: all are sound."""
        groups: dict[str, list[Format]] = {}
        for site in self.sites.values():
            groups.setdefault(site.group, []).append(site.format)
        own = {tensor: [site.format] for tensor, site in self.sites.items()}
        for kind, parts in ARRAYS.items():
            for name, value in getattr(self, kind).items():
                arrays = {part: np.asarray(getattr(value, part)) for part in parts} or {"": np.asarray(value)}
                why = entry_fault(arrays, (groups if kind == "qparams" else own).get(name, ()))
                if why is not None:
                    return f"{kind} of {name!r}: {why}"
        inside = ((key, plan.fault()) for key, plan in self.bodies.items())
        return next((f"in {key}, {why}" for key, why in inside if why is not None), None)

    def parts(self) -> Iterator[Plan]:
        """The plan, and those of all bodies."""
        yield self
        for plan in self.bodies.values():
            yield from plan.parts()

    @property
    def empty(self) -> bool:
        """Whether nothing is quantized, bodies included."""
        return not any(part.nodes for part in self.parts())

    @property
    def reasons(self) -> dict[str, str]:
        """Node that stays float → the reason, bodies included."""
        return {node: reason for part in self.parts() for node, reason in part.notes.items()}

    def _card(self) -> Card:
        rows = [self._row(site) for site in self.sites.values()]
        tuned = [*self.codes, *self.values]
        return plan_card(self.model, rows, len(self.nodes), self.notes, self.remarks, tuned, [*self.bodies])

    def _row(self, site: Site) -> TensorRow:
        known = self.qparams_of(site.tensor) if site.group in self.qparams else None
        numbers = (None, None) if known is None else (known.scale, known.zero_point)
        return TensorRow(site.tensor, site.role, site.format, *numbers)

    def save(self, folder: str | Path, config: str | None = None) -> Path:
        """Write `plan.json` and `arrays.npz`, and `config` to `config.json`, into `folder`.

        Raises:
            ConfigError: the folder is there and is not an earlier plan, or cannot be written.
        """
        arrays: dict[str, Any] = {}
        for kind, parts in ARRAYS.items():
            for name, value in getattr(self, kind).items():
                arrays |= {f"{kind}/{name}/{p}": getattr(value, p) for p in parts} or {f"{kind}/{name}/": value}
        with new_folder(Path(folder), FILES) as temporary:
            (temporary / "plan.json").write_text(json.dumps(self._document(), indent=1) + "\n", encoding="utf-8")
            np.savez(temporary / "arrays.npz", **arrays)
            for number, plan in enumerate(self.bodies.values()):
                plan.save(temporary / BODIES / str(number))
            if config is not None:
                (temporary / "config.json").write_text(config + "\n", encoding="utf-8")
        return Path(folder)

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"version": VERSION, "model": self.model}
        document["sites"] = [asdict(site) for site in self.sites.values()]
        document |= {BODIES: list(self.bodies)} if self.bodies else {}
        return document | {name: dict(getattr(self, name)) for name in ("nodes", "notes", "remarks")}

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """Read a plan that `save` wrote.

        Raises:
            PlanError: files are missing, of another version, or malformed, or hold numbers that no plan may have.
        """
        path = Path(folder) / "plan.json"
        for part in (path, path.with_name("arrays.npz")):
            if not part.exists():
                raise PlanError(f"no plan in {folder}: {part} is missing; make one with `quark-onnx plan`")
        with reading(folder, PlanError, "make a new one", "holds no plan that quark_onnx wrote"):
            document = json_of(path.read_text(encoding="utf-8"))
            if document.get("version") != VERSION:
                raise PlanError(f"{path} has version {document.get('version')!r}; this release reads {VERSION}")
            sites = [_site(entry) for entry in document["sites"]]
            with path.with_name("arrays.npz").open("rb") as file, np.load(file) as stored:
                arrays = _unpacked({key: stored[key] for key in stored.files})
            nodes = {node: _listed(tensors) for node, tensors in document["nodes"].items()}
            by_tensor = {site.tensor: site for site in sites}
            if len(by_tensor) < len(sites):
                raise ValueError("a tensor has two sites")
            if unknown := {*chain(*nodes.values(), *(site.factors for site in sites))} - by_tensor.keys():
                raise ValueError(f"no site for tensor {min(unknown)!r}")
            notes, remarks = _texts(document["notes"]), _texts(document["remarks"])
            keys = enumerate(_listed(document.get(BODIES, [])))
            bodies = {key: cls.load(path.with_name(BODIES) / str(number)) for number, key in keys}
            model = _text(document["model"])
            plan = cls(model, by_tensor, nodes, notes, remarks=remarks, bodies=bodies, **arrays)
            fault = plan.fault()
        if fault is not None:
            raise PlanError(f"{folder}: {fault}; make a new plan, or put the right numbers back")
        return plan


ARRAYS: dict[str, tuple[str, ...]] = {
    "qparams": ("scale", "zero_point"),
    "factors": (),
    "shifts": (),
    "smoothed": (),
    "rounded": ("codes", "scale"),
    "codes": ("codes", "scale"),
    "values": (),
}
"""Fields of the plan that hold arrays, with the parts that each entry has; an entry without parts is an array."""


def _unpacked(stored: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Fields from the entries `field/name/part` of an archive, in its order; names may hold slashes.

    Constants are added to the model in that order: another one would give other bytes than the plan that was saved.
    """
    found: dict[str, dict[str, Any]] = {kind: {} for kind in ARRAYS}
    makers = {"qparams": QParams, "rounded": Coded, "codes": Coded}
    for key in stored:
        kind, rest = key.split("/", 1)
        name = rest.rpartition("/")[0]
        if kind in makers:
            found[kind][name] = makers[kind](**{part: stored[f"{kind}/{name}/{part}"] for part in ARRAYS[kind]})
        else:
            found[kind][name] = stored[key]
    return found


def _listed(tensors: object) -> tuple[str, ...]:
    if not isinstance(tensors, list):
        raise ValueError(f"{tensors!r} is no list of tensors")
    return tuple(map(_text, tensors))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _texts(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        raise ValueError(f"{found!r} is no object of texts")
    return {name: _text(value) for name, value in found.items()}


def _site(entry: dict[str, Any]) -> Site:
    known = None if entry["range"] is None else tuple(tuple(e) if isinstance(e, list) else e for e in entry["range"])
    for name in ("tensor", "group", "rule", *(["method"] if entry["method"] is not None else [])):
        _text(entry[name])
    changes = {"format": Format(**entry["format"]), "factors": _listed(entry["factors"]), "range": known}
    site = Site(**{**entry, **changes})
    wrong = None if site.role in get_args(Role) else f"role {site.role!r}"
    wrong = wrong or format_fault(site.format) or range_fault(site.range, site.low, site.floor)
    if wrong is not None:
        raise ValueError(f"site {site.tensor!r} has {wrong}")
    return site
