"""Which value of a sample belongs to which input. What is none, as labels are, is passed over only where that is sure.

{"ids": …, "mask": …, "label": …}    by name; other keys are not read
(image, label)                       by position, where nothing behind the inputs could be one
({"ids": …}, label), ((a, b), label) the first, where what is behind it is not of its kind
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from quark_onnx.core.errors import DataError, nearest
from quark_onnx.engine.array_likes import holds_array
from quark_onnx.engine.data_sources import InputSpec
from quark_onnx.engine.fitted_values import Note, could_be, rank_of


def named(item: object, inputs: Sequence[InputSpec], where: str, note: Note) -> Mapping[str, object]:
    """The item as input name → value.

    Raises:
        DataError: an input is not in it, or it is not sure which value is one.
    """
    item = _without_labels(item, inputs, where, note)
    fields = getattr(item, "_fields", ()) if isinstance(item, tuple) else ()
    if any(spec.name in fields for spec in inputs):
        item = cast("Any", item)._asdict()
    if isinstance(item, Mapping):
        return _by_name(item, inputs, where, note)
    values = cast("Sequence[object]", item) if _is_positional(item, len(inputs)) else (item,)
    return _by_position(values, inputs, where, note)


def _without_labels(item: object, inputs: Sequence[InputSpec], where: str, note: Note) -> object:
    """The dict or the tuple of inputs, where labels stand beside it."""
    if not isinstance(item, (list, tuple)) or not item:
        return item
    if all(isinstance(value, Mapping) for value in item) and len(item) > 1:
        raise DataError(
            f"{where} is a list of {len(item)} dicts; let the loader put them together, or pass them one by one: "
            "lambda: (row for batch in data for row in batch)"
        )
    first, rest = item[0], item[1:]
    if not isinstance(first, Mapping) and not _is_tuple_of(inputs, first, rest):
        return item
    if rest:
        note(f"samples hold {len(item)} values, of which the first has the inputs; the others are not read")
    return first


def _is_tuple_of(inputs: Sequence[InputSpec], first: object, rest: Sequence[object]) -> bool:
    """Whether the first value holds whole inputs, and nothing else could be one. A list of rows is one input."""
    if not isinstance(first, (list, tuple)) or len(first) != len(inputs):
        return False
    ranks = [len(spec.shape) if spec.shape is not None else None for spec in inputs]
    if not all(map(_is_array, first)) or list(map(rank_of, first)) != ranks:
        return False
    return not any(_could_be_any(value, first, inputs) for value in rest)


def _by_name(item: Mapping[Any, object], inputs: Sequence[InputSpec], where: str, note: Note) -> Mapping[str, object]:
    names = [spec.name for spec in inputs]
    missing = [spec for spec in inputs if spec.name not in item]
    others = [key for key in item if key not in names]
    if not missing:
        if others:  # all inputs are there, so that none of these is one misspelt
            note(f"what samples hold besides the model's inputs is not read: {', '.join(map(repr, others))}")
        return item
    if missing[0].truth:
        held = nearest(missing[0].name, [str(name) for name in item])
        raise DataError(f"{where}: nothing in it has the name {missing[0].name!r}, which SampleMask says{held}")
    if others:
        renamed = f"lambda: ({{{missing[0].name!r}: sample[{others[0]!r}]}} for sample in data)"
        raise DataError(
            f"{where}: input {missing[0].name!r} is missing (pass {renamed} if that is it), and the model "
            f"has no input {others[0]!r}{nearest(str(others[0]), names)}"
        )
    raise DataError(f"{where}: input {missing[0].name!r} is missing; add it to the feed of {list(item)}")


def _by_position(values: Sequence[object], inputs: Sequence[InputSpec], where: str, note: Note) -> Mapping[str, object]:
    names = [spec.name for spec in inputs]
    count, others = len(names), values[len(names) :]
    if len(values) < count:
        raise DataError(
            f"{where} gives {len(values)} array(s), the model has {count} input(s) ({', '.join(names)}); "
            "pass a dict, or a tuple with one array for each input"
        )
    rivals = [(i, name) for i, value in enumerate(others, count) if (name := _could_be_any(value, values, inputs))]
    if rivals:
        index, name = rivals[0]
        feed = ", ".join(f"{name!r}: sample[{i}]" for i, name in enumerate(names))
        raise DataError(
            f"{where} gives {len(values)} array(s), the model has {count} input(s) ({', '.join(names)}), and that at "
            f"[{index}] could be {name!r}, too; say which are read: pass lambda: ({{{feed}}} for sample in data)"
        )
    if others:
        note(f"samples hold {len(values)} values for {count} input(s), in this order; what is behind them is not read")
    return dict(zip(names, values, strict=False))


def _could_be_any(value: object, taken: Sequence[object], inputs: Sequence[InputSpec]) -> str | None:
    """The first input that a value could be as well as what is taken for it."""
    pairs = zip(taken, inputs, strict=False)
    return next((spec.name for other, spec in pairs if could_be(value, spec, rank_of(other))), None)


def _is_array(value: object) -> bool:
    """Whether it is one with dimensions: one of a library's numbers is a number."""
    return holds_array(value) and getattr(value, "shape", None) != ()


def _is_positional(item: object, inputs: int) -> bool:
    """Whether the item lists one value per input. For a single input a list of plain numbers is the value itself."""
    if not isinstance(item, list):
        return isinstance(item, tuple)
    return inputs > 1 or any(map(_is_array, item))
