"""What a user wants of single tensors and of operator types: the options TensorQuantOverrides and OpTypeQuantOverrides.

The first has onnxruntime's schema and our key `calibrate_method`:

    {tensor: [{quant_type, symmetric, reduce_range, axis, scale, zero_point, rmin, rmax, calibrate_method, convert}]}

with one dictionary per channel, or one for all. `convert` holds {quant_type, symmetric, scale, zero_point, rmin, rmax,
recv_nodes}: the tensor is quantized once more, in another type, for the nodes that are named, or for all readers.
Where `axis` is left out a weight keeps the scales it would have, one or per channel, unless a range or a scale is
given: that is one for the whole tensor. `axis` None asks for one scale.

The second says the same, without numbers, of what an operator reads and writes:

    {operator type: {"input": …, "weight": …, "output": {quant_type, symmetric, calibrate_method, …}}}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.frozen_dict import FrozenDict
from quark_onnx.core.number_formats import FLOATS, TYPES, Format, type_name
from quark_onnx.core.settings.checked_fields import Check, flag, named, optional, real, whole
from quark_onnx.core.settings.range_methods import ALIASES, METHODS

Plain = FrozenDict[str, Any]


@dataclass(frozen=True)
class Override:
    """What is asked of one tensor; None and () leave it as it would be.

    type         canonical name of an integer type
    per_channel  one scale per index of `axis`; without an axis: of the output channels
    method       range method
    scale, zero_point, lo, hi  one for the whole tensor, or one per channel
    convert      what is asked of the tensor's second quantizer; the nodes behind it are in `readers`
    readers      empty: all
    channels     how many of them were told one by one
    """

    type: str | None = None
    symmetric: bool | None = None
    reduce_range: bool | None = None
    per_channel: bool | None = None
    axis: int | None = None
    method: str | None = None
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    lo: tuple[float, ...] = ()
    hi: tuple[float, ...] = ()
    convert: Override | None = None
    readers: tuple[str, ...] = ()
    channels: int | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What is asked for, by field."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if value not in (None, ())}

    def over(self, other: Override) -> Override:
        """This one, and what `other` asks for where this one leaves it open."""
        return replace(other, **self.told)


def _type(name: str, value: Any) -> str:
    found = type_name(value, name)
    if found in FLOATS:
        raise ConfigError(f"{name}: a tensor takes an integer type, not {found!r}; leave its nodes float instead")
    return found


def _method(name: str, value: Any) -> str:
    return named(value, tuple(METHODS), name, ALIASES)


def _nodes(name: str, value: Any) -> list[str]:
    listed = sorted(value, key=str) if isinstance(value, AbstractSet) else value
    wrong = isinstance(listed, str) or not isinstance(listed, Sequence) or not listed
    if wrong or not all(isinstance(entry, str) for entry in listed):
        raise ConfigError(
            f"{name} must be a list of node names, not {value!r}; leave it out to convert for all readers"
        )
    return list(listed)


def _converted(name: str, value: Any) -> Plain:
    entry = _entry(name, value, _CONVERT)
    if "quant_type" not in entry:
        raise ConfigError(f"{name} needs a quant_type: the type that the tensor is converted to")
    _check_numbers(name, entry)
    return entry


_NUMBERS: dict[str, Check] = {
    "scale": real(above=0.0),
    "zero_point": whole(-(2**15), 2**16 - 1),
    "rmin": real(),
    "rmax": real(),
}
_CONVERT: dict[str, Check] = {"quant_type": _type, "symmetric": flag, **_NUMBERS, "recv_nodes": _nodes}
_TENSOR: dict[str, Check] = {
    "quant_type": _type,
    "symmetric": flag,
    "reduce_range": flag,
    "axis": optional(whole(-8, 7)),
    "calibrate_method": _method,
    "convert": _converted,
    **_NUMBERS,
}
_PART: dict[str, Check] = {"quant_type": _type, "symmetric": flag, "calibrate_method": _method}
_PARTS: dict[str, dict[str, Check]] = {
    "input": _PART,
    "weight": _PART | {"reduce_range": flag, "per_channel": flag},
    "output": _PART,
}


def plain_tensors(value: Mapping[str, Any]) -> Plain:
    """The value of TensorQuantOverrides as JSON gives it back: types by name, one list per tensor.

    Raises:
        ConfigError: an unknown key, a wrong value, or keys that exclude each other.
    """
    return FrozenDict({str(tensor): _channels(f"TensorQuantOverrides[{tensor!r}]", v) for tensor, v in value.items()})


def plain_types(value: Mapping[str, Any]) -> Plain:
    """The value of OpTypeQuantOverrides as JSON gives it back.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    found = {}
    for op_type, parts in value.items():
        where = f"OpTypeQuantOverrides[{op_type!r}]"
        checks = {part: _reader(keys) for part, keys in _PARTS.items()}
        found[str(op_type)] = _entry(where, parts, checks)
    return FrozenDict(found)


def _reader(checks: Mapping[str, Check]) -> Callable[[str, Any], Plain]:
    return lambda name, value: _entry(name, value, checks)


def _entry(where: str, value: Any, checks: Mapping[str, Check]) -> Plain:
    """A dictionary whose keys are among those of `checks`."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a dictionary of {', '.join(checks)}, not {value!r}")
    for key in value:
        if key not in checks:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), checks)}")
    return FrozenDict({key: checks[key](f"{where}[{key!r}]", _item(entry)) for key, entry in value.items()})


def _item(value: Any) -> Any:
    """The number in an array of one."""
    return value.item() if getattr(value, "size", None) == 1 and hasattr(value, "item") else value


def _channels(where: str, value: Any) -> list[Plain]:
    """One dictionary, or one per channel that agree in all but their numbers."""
    listed = [value] if isinstance(value, Mapping) else value
    if isinstance(listed, str) or not isinstance(listed, Sequence) or not listed:
        raise ConfigError(f"{where} must be a list of dictionaries, one or one per channel, not {value!r}")
    entries = [_entry(f"{where}[{i}]", entry, _TENSOR) for i, entry in enumerate(listed)]
    first, numbers = entries[0], set(entries[0]) & set(_NUMBERS)
    if len(entries) > 1 and first.get("axis") is None:
        raise ConfigError(f"{where} has {len(entries)} dictionaries: the first one needs the 'axis' of the channels")
    for i, entry in enumerate(entries):
        _check_numbers(f"{where}[{i}]", entry)
        for key in entry:
            if key not in _NUMBERS and entry[key] != first.get(key):
                raise ConfigError(f"{where}[{i}]: {key} is {entry[key]!r}, but {first.get(key)!r} in the first channel")
        if set(entry) & set(_NUMBERS) != numbers:
            wanted = " and ".join(sorted(numbers)) or "no numbers"
            raise ConfigError(f"{where}[{i}] must have {wanted}, as the first channel has")
    return entries


def _check_numbers(where: str, entry: Mapping[str, Any]) -> None:
    """Numbers come in pairs, one pair at most, and leave nothing to choose that other keys could ask for."""
    given = [key for key in _NUMBERS if key in entry]
    for pair in (("scale", "zero_point"), ("rmin", "rmax")):
        if len(set(pair) & set(given)) == 1:
            raise ConfigError(f"{where} has {given[0]!r} only; give both {pair[0]!r} and {pair[1]!r}")
    if "scale" in given:
        for key in ("rmin", "rmax", "symmetric", "reduce_range"):
            if key in entry:
                raise ConfigError(
                    f"{where}: {key!r} has no meaning beside 'scale' and 'zero_point'; remove one of them"
                )
    if given and "calibrate_method" in entry:
        raise ConfigError(f"{where}: 'calibrate_method' has no meaning beside {given[0]!r}; remove one of them")
    if "rmin" in given and entry["rmin"] >= entry["rmax"]:
        raise ConfigError(f"{where}: rmin {entry['rmin']} is not below rmax {entry['rmax']}")


def tensor_overrides(plain: Mapping[str, Any]) -> dict[str, Override]:
    """By tensor, from what `plain_tensors` returned."""
    return {tensor: _override(entries) for tensor, entries in plain.items()}


def type_overrides(plain: Mapping[str, Any]) -> dict[str, dict[str, Override]]:
    """By operator type and "input", "weight" or "output", from what `plain_types` returned."""
    return {op_type: {part: _override([entry]) for part, entry in parts.items()} for op_type, parts in plain.items()}


def _override(entries: Sequence[Mapping[str, Any]]) -> Override:
    first = entries[0]
    columns = {key: tuple(entry[key] for entry in entries if key in entry) for key in _NUMBERS}
    per_channel = first.get("per_channel")
    if "axis" in first:
        per_channel = first["axis"] is not None
    elif columns["scale"] or columns["rmin"]:
        per_channel = False
    convert = first.get("convert")
    return Override(
        first.get("quant_type"),
        first.get("symmetric"),
        first.get("reduce_range"),
        per_channel,
        first.get("axis"),
        first.get("calibrate_method"),
        columns["scale"],
        columns["zero_point"],
        columns["rmin"],
        columns["rmax"],
        None if convert is None else replace(_override([convert]), per_channel=None),
        tuple((convert or {}).get("recv_nodes", ())),
        len(entries) if len(entries) > 1 else None,
    )


def asked_for(tensors: Mapping[str, Override], types: Mapping[str, Mapping[str, Override]]) -> list[Override]:
    """All that is asked for, of second quantizers too."""
    found = [*tensors.values(), *(one for parts in types.values() for one in parts.values())]
    return found + [one.convert for one in found if one.convert is not None]


def override_opset(tensors: Mapping[str, Override], types: Mapping[str, Mapping[str, Override]]) -> int:
    """The first opset that has all types that are asked for."""
    names = {one.type for one in asked_for(tensors, types) if one.type is not None}
    return max((Format(*TYPES[name]).opset for name in names), default=0)
