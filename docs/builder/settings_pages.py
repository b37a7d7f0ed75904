"""Pages of what a user may ask for: options, fields, settings of fine-tuning, range methods, presets."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, Field, fields

from aligned_fields import fields_of
from markdown_parts import NONE, anchored, code, codes, in_words, named, prose, table, value

from quark_onnx.cli.presets import explained
from quark_onnx.core.settings import range_methods
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.extra_options import OPTIONS, UNSUPPORTED
from quark_onnx.core.settings.fast_finetune import METHODS, FastFinetune, quark_key
from quark_onnx.core.settings.presets import DEFAULT, PRESETS, TRAINED
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.core.settings.training.qat import QAT


def option_page() -> str:
    """Every key of `extra_options`, and those of others that are refused."""
    rows = [
        (named(key, codes(kind.__name__ for kind in _kinds(option.type)), value(option.default)), prose(option.meaning))
        for key, option in OPTIONS.items()
    ]
    refused = [(code(key), prose(why)) for key, why in UNSUPPORTED.items()]
    return f"""# Options

The keys of `extra_options`, `--option KEY=VALUE` of the command line. An unknown key is an error that names the
nearest known one, and so is one that has nothing to act on. Below each is its type, and its default where it has one
of its own: the others are decided as the meaning says.

{table(("option", "meaning"), rows)}

## Keys of other tools that are refused

{table(("key", "why, and what to do"), refused)}
"""


def _kinds(kind: type | tuple[type, ...]) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def configuration_page() -> str:
    """Every field of `QuantizationConfig`."""
    meaning = fields_of(inspect.getdoc(QuantizationConfig) or "")
    rows = [
        (named(entry.name, code(str(entry.type)), _default(entry)), _linked(prose(meaning[entry.name])))
        for entry in fields(QuantizationConfig)
    ]
    return f"""# Configuration

The fields of `QuantizationConfig`. It is frozen; a variant is a copy: `dataclasses.replace(config,
per_channel=True)`. The same fields, and `extra_options`, are what a JSON file for `--config` holds. The defaults are
where Quark and onnxruntime begin; [presets](presets.md) set more, and `Config()` is the preset `{DEFAULT}`.

{table(("field", "meaning"), rows)}
"""


_LINKS = {
    "`TARGETS`": "[targets](targets.md)",
    "`METHODS` in `core.settings.range_methods`": "[range methods](methods.md)",
    "`PAIRS`": "[pairs](targets.md#pairs-of-weights)",
    "`OPTIONS`": "[options](options.md)",
    "`finetune`": "[settings of fine-tuning](finetune.md)",
    "option AutoMixprecision": "option [AutoMixprecision](options.md#AutoMixprecision)",
}
"""What a docstring names, and where the site has it."""


def _linked(text: str) -> str:
    for name, link in _LINKS.items():
        text = text.replace(name, link)
    return text


def _default(entry: Field[object]) -> str:
    if entry.default is not MISSING:
        return value(entry.default)
    return code("{}") if entry.default_factory is dict else NONE


def finetune_page() -> str:
    """Every setting of fast fine-tuning, of all methods and of each."""
    shared = {entry.name for entry in fields(FastFinetune)}
    parts = [_settings("All methods", FastFinetune, shared)]
    for method in METHODS.values():
        own = {
            entry.name
            for entry in fields(method)
            if entry.name not in shared or entry.default != FastFinetune.__dataclass_fields__[entry.name].default
        }
        parts.append(_settings(method.__name__, method, own))
    return """# Settings of fine-tuning

`extra_options["FastFinetune"]` is an object of one of these classes, or Quark's dictionary: the same names, spelled
as the last line below each, and `OptimAlgorithm`. What the methods do, and what is refused: [fast
fine-tuning](../fast_finetune.md).

""" + "\n\n".join(parts)


def _settings(title: str, method: type[FastFinetune], names: set[str]) -> str:
    meaning = fields_of(inspect.getdoc(FastFinetune) or "") | fields_of(inspect.getdoc(method) or "")
    rows = [
        (
            named(entry.name, code(str(entry.type)), value(entry.default), code(quark_key(entry.name))),
            prose(meaning[entry.name]),
        )
        for entry in fields(method)
        if entry.name in names
    ]
    intro = "" if method is FastFinetune else prose((inspect.getdoc(method) or "").partition("\n")[0]) + "\n\n"
    return f"## {title}\n\n{intro}" + table(("field", "meaning"), rows) + "\n"


def training_page() -> str:
    """Every setting of training."""
    parts = "\n\n".join(
        f"## {title}\n\n{prose((inspect.getdoc(kind) or '').partition(chr(10))[0])}\n\n{_fields(kind)}"
        for title, kind in (("Training", QAT), ("Losses", Losses))
    )
    return f"""# Settings of training

`extra_options["QAT"]` is True, an object of the class `QAT`, or a dictionary of the fields that differ from the
defaults; `losses` in it likewise. Presets that end with `{TRAINED}` have it on. How it works:
[training](../training.md).

{parts}
"""


def _fields(kind: type[QAT] | type[Losses]) -> str:
    meaning = fields_of(inspect.getdoc(kind) or "")
    rows = [
        (named(entry.name, code(str(entry.type)), value(entry.default)), prose(meaning[entry.name]))
        for entry in fields(kind)
    ]
    return table(("field", "meaning"), rows)


def method_page() -> str:
    """Every way to choose a range."""
    others = {name: [alias for alias, known in range_methods.ALIASES.items() if known == name] for name in _METHODS}
    rows = [
        (anchored(name), "weights" if name in range_methods.WEIGHT_ONLY else "both", prose(text), codes(others[name]))
        for name, text in _METHODS.items()
    ]
    return f"""# Range methods

For `calibrate_method` (activations) and the option `WeightCalibrateMethod`. Settings, sources and what they gain:
[ranges](../calibration.md).

{table(("method", "for", "the range it takes", "also called"), rows)}
"""


_METHODS = {**range_methods.METHODS, **range_methods.WEIGHT_ONLY}


def preset_page() -> str:
    """Every preset in words, those that only add fine-tuning beside the one that they add it to."""
    endings = [*(f"_{method.upper()}" for method in METHODS), TRAINED]
    tuned = {name: [f"{name}{ending}" for ending in endings] for name in PRESETS}
    tuned = {name: [other for other in others if other in PRESETS] for name, others in tuned.items()}
    added = {other for others in tuned.values() for other in others}
    parts = [_preset(name, tuned[name]) for name in PRESETS if name not in added]
    return f"""# Presets

Each in words, as `quark-onnx presets NAME` explains it. `{DEFAULT}` is the default. Any name of the form of
`S8S8_AAWS` is a preset, too, such as `U8S4_AAWS` or `S16S8_AAWS_ADAQUANT`: activations and weights, signed or unsigned
(`S`, `U`) of 2 to 16 bits; activations (`A`) and weights (`W`) asymmetric or symmetric (`A`, `S`). Which one to take:
[presets, targets and variants](../presets.md).

""" + "\n\n".join(parts)


def _preset(name: str, tuned: list[str]) -> str:
    rows = [(in_words(aspect), prose(text)) for aspect, text in explained(PRESETS[name]).items()]
    rows += [(f"<code>{in_words(other)}</code>", prose(_added(PRESETS[other]))) for other in tuned]
    return f"## {name}\n\n{table(('', ''), rows)}\n"


def _added(config: QuantizationConfig) -> str:
    """What a preset does that is another one, and more."""
    told = explained(config)
    return "; ".join(told[part] for part in ("Fine-tuning", "Training") if part in told)
