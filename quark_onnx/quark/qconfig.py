"""The configuration of Quark's second API: for the whole model, for single layers, for operator types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest, reading
from quark_onnx.ort.strict_fields import StrictFields
from quark_onnx.quark.algorithms import AlgoConfig
from quark_onnx.quark.data_types import DataType
from quark_onnx.quark.lowered_config import KNOWN, dictionary
from quark_onnx.quark.presets import get_default_config
from quark_onnx.quark.quantization_config import Config
from quark_onnx.quark.serialized import algorithm_of, layer_of, plain
from quark_onnx.quark.specs import QLayerConfig

_BY_LAYER = ("specific_layer_config", "layer_type_config")
Layer = QLayerConfig | DataType
"""A data type is all tensors of a layer in that type."""


@dataclass(init=False, eq=False)
class QConfig(StrictFields):
    """Mutable; values are read when a `ModelQuantizer` uses them.

    Args:
        global_config: of all layers that the others say nothing of.
        specific_layer_config: {QLayerConfig: [names, regular expressions (^…), ([start nodes], [end nodes])]}.
        layer_type_config: {QLayerConfig: [operator types]}; those under None stay float.
        exclude: what stays float: names, regular expressions, and pairs ([start nodes], [end nodes]).
        algo_config: what improves the model.
        use_external_data_format: write weights beside the model.
        extra_options: as those of `QuantizationConfig`; they may also be arguments.

    Raises:
        ConfigError: an argument that is neither a field nor an option.
    """

    global_config: QLayerConfig
    specific_layer_config: dict[Layer, list[Any]]
    layer_type_config: dict[Layer | None, list[str]]
    exclude: list[Any]
    algo_config: list[AlgoConfig]
    use_external_data_format: bool
    extra_options: dict[str, Any]

    def __init__(
        self,
        global_config: QLayerConfig,
        specific_layer_config: dict[Any, list[Any]] | None = None,
        layer_type_config: dict[Any, list[str]] | None = None,
        exclude: list[Any] | None = None,
        algo_config: list[AlgoConfig] | None = None,
        use_external_data_format: bool = False,
        extra_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        names = [entry.name for entry in fields(self)]
        for key in options:
            if key not in KNOWN:
                raise ConfigError(
                    f"QConfig has neither a field nor an extra option {key!r}{nearest(key, (*names, *KNOWN))}"
                )
        self.global_config = global_config
        self.specific_layer_config = {} if specific_layer_config is None else specific_layer_config
        self.layer_type_config = {} if layer_type_config is None else layer_type_config
        self.exclude = [] if exclude is None else exclude
        self.algo_config = [] if algo_config is None else algo_config
        self.use_external_data_format = use_external_data_format
        self.extra_options = {**({} if extra_options is None else dictionary(extra_options)), **options}

    def to_dict(self) -> dict[str, Any]:
        """All of it as dictionaries, lists, strings and numbers; of algorithms what is not their default."""
        found = {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}
        for name in _BY_LAYER:
            found[name] = [[plain(layer), plain(names)] for layer, names in getattr(self, name).items()]
        return found

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> QConfig:
        """What `to_dict` makes.

        Raises:
            ConfigError: a name or a value that there is not.
        """
        with reading("the dictionary", ConfigError, "give what to_dict makes", "is no QConfig"):
            values = {**d, "global_config": layer_of(d["global_config"])}
            for name in _BY_LAYER:
                pairs = d.get(name, [])
                values[name] = {None if layer is None else layer_of(layer): _pairs(names) for layer, names in pairs}
            values["algo_config"] = [algorithm_of(one) for one in d.get("algo_config", [])]
            values["exclude"] = _pairs(d.get("exclude", []))
            return QConfig(**values)

    @staticmethod
    def get_default_config(config_name: str) -> Config:
        """A new configuration of the first API with the values of a preset, as in Quark.

        Raises:
            ConfigError: there is no such preset.
        """
        return Config(get_default_config(config_name))


def _pairs(entries: list[Any]) -> list[Any]:
    """Names, and what JSON has made lists of as pairs."""
    return [entry if isinstance(entry, str) else tuple(entry) for entry in entries]
