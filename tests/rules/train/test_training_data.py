"""What a user gives to training besides samples, through the API: who reads it, and what is refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx import ConfigError, DataError, ModelQuantizer, QuantizationConfig, QuarkError, get_default_config
from quark_onnx.engine.labels import LABELS

TEXT = "g (float[N,3,4,4] x) => (float[N,3] y) { [f] a = Flatten (x) [p] y = Gemm (a, w, b) }"
X = normal(24, 3, 4, 4)
IDS = np.arange(24) % 3


def model() -> onnx.ModelProto:
    return text_model(TEXT, w=normal(48, 3), b=normal(3))


def config(preset: str = "S8S8_AAWS_QAT", **training: Any) -> QuantizationConfig:
    start = get_default_config(preset)
    more = {"QAT": {"steps": 4, **training}} if preset.endswith("_QAT") else {}
    return replace(start, extra_options={**start.extra_options, **more})


def quantized(how: QuantizationConfig, data: Any = X, **given: Any) -> bytes:
    return ModelQuantizer(how).quantize_model(model(), None, data, **given).model.SerializeToString()


def test_an_augmentation_sees_samples_with_their_labels() -> None:
    seen: dict[bytes, int] = {}

    def augment(sample: dict[str, np.ndarray], chance: np.random.Generator) -> dict[str, np.ndarray]:
        assert sample["x"].shape == (1, 3, 4, 4) and isinstance(chance, np.random.Generator)
        seen[sample["x"].tobytes()] = int(sample[LABELS][0])
        return {**sample, "x": sample["x"] + chance.normal(0, 0.1, sample["x"].shape).astype(np.float32)}

    how = config(learning_rate=0.1)
    first, again = (quantized(how, labels=IDS, augment=augment) for _ in range(2))
    assert first == again != quantized(how, labels=IDS)
    assert seen and all(
        seen[x[None].tobytes()] == label for x, label in zip(X, IDS, strict=True) if x.tobytes() in seen
    )


def test_a_checkpoint_is_of_its_samples_and_labels(tmp_path: Path) -> None:
    how = config(checkpoint=str(tmp_path / "training.npz"))
    first = quantized(how, labels=IDS)
    assert quantized(how, labels=IDS) == first
    for data, given in ((X, {"labels": IDS[::-1]}), (X, {}), (X[::-1], {"labels": IDS[::-1]})):
        with pytest.raises(ConfigError, match="another training"):
            quantized(how, data, **given)


def test_an_augmentation_that_fails_is_named() -> None:
    with pytest.raises(DataError, match=r"the augmentation fails on sample \d+: KeyError"):
        quantized(config(), augment=lambda feed, _: feed["no such input"])


def test_flips_make_another_model() -> None:
    assert quantized(config(flip=True, learning_rate=0.1), labels=IDS) != quantized(
        config(learning_rate=0.1), labels=IDS
    )


def test_labels_do_not_change_what_is_not_trained() -> None:
    """They travel with the samples through calibration and fine-tuning, which pass over them."""
    none = {"weights": False, "weight_scales": False, "activation_ranges": False, "learning_rate": 1e-30}
    begun = quantized(config(**none))
    assert quantized(config(**none), labels=IDS) == begun
    assert begun != quantized(config("S8S8_AAWS_ADAROUND")), "the start has not seen the samples that judge"


@pytest.mark.parametrize(
    ("how", "given", "kind", "told"),
    [
        (config("S8S8_AAWS"), {"labels": IDS}, ConfigError, "labels are for training"),
        (config("S8S8_AAWS_ADAROUND"), {"augment": dict}, ConfigError, "an augmentation is for training"),
        (config(), {"augment": "flip"}, ConfigError, "augment must be a function of a sample"),
        (config(flip=True), {"augment": lambda feed, _: feed}, ConfigError, "augment is in place of flip and crop"),
        (
            config(losses={"cross_entropy": 1.0}),
            {},
            ConfigError,
            "cross_entropy compares with labels, and there are non",
        ),
        (config(losses={"kl": 1.0}), {"labels": IDS}, ConfigError, "none of the losses reads them"),
        (config(), {"labels": IDS[:5]}, DataError, "there are 5 labels, and the 24 samples"),
        (config(), {"labels": IDS - 1}, DataError, "8 of 24 labels are no class, first -1 of sample 0"),
        (config(), {"labels": ["a"] * 24}, DataError, "not numbers; class names become ids"),
        (config(flip=True), {"labels": normal(24, 3)}, ConfigError, "flip moves what is in a picture"),
        (config(), {"data": None}, DataError, "there is no calibration data; pass a reader"),
        (config(), {"data": X[:1]}, DataError, "training takes at least two samples"),
    ],
)
def test_what_is_refused(how: QuantizationConfig, given: dict[str, Any], kind: type[QuarkError], told: str) -> None:
    with pytest.raises(kind, match=told):
        quantized(how, **given)


def test_random_samples_have_no_labels() -> None:
    how = config()
    with pytest.raises(ConfigError, match="labels are given, and UseRandomData=True asks for random samples"):
        quantized(replace(how, extra_options={**how.extra_options, "UseRandomData": True}), None, labels=IDS)


def test_conversions_are_not_trained() -> None:
    with pytest.raises(ConfigError, match="QAT is for integers; a model that becomes float16 has none; remove it"):
        QuantizationConfig(activation_type="float16", weight_type="float16", extra_options={"QAT": True})
