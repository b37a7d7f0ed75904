"""What range methods are tried on: values by the shape of their distribution, and formats by name."""

from __future__ import annotations

import numpy as np

from quark_onnx.core.number_formats import Format

FORMATS = {
    "int8": Format(),
    "int8 symmetric": Format(symmetric=True),
    "int8 symmetric, not strict": Format(symmetric=True, strict=False),
    "int8 power of two": Format(symmetric=True, strict=False, scale="pow2"),
    "uint8": Format(signed=False),
    "uint8 symmetric": Format(signed=False, symmetric=True),
    "uint8 one-sided": Format(signed=False, symmetric=True, one_sided=True),
    "int16": Format(16),
    "int16 symmetric": Format(16, symmetric=True),
    "int4": Format(4),
    "int4 symmetric": Format(4, symmetric=True),
    "uint4": Format(4, signed=False),
    "int2 symmetric": Format(2, symmetric=True),
}


def formats(*names: str) -> dict[str, Format]:
    """Some of them."""
    return {name: FORMATS[name] for name in names}


def normal_numbers(count: int, seed: int) -> np.ndarray:
    """What most of the distributions are made of."""
    return np.random.default_rng(seed).standard_normal(count)


def distributions(count: int, seed: int, *names: str) -> dict[str, np.ndarray]:
    """(count,) values of each distribution named; those that are about few values have as many as they need.

    The values of a name do not depend on which others are asked for.
    """
    normal, other = normal_numbers(count, seed), normal_numbers(count, seed + 1)
    rng = np.random.default_rng([seed, count])
    uniform, laplace, cauchy = rng.uniform(-1, 3, count), rng.laplace(size=count), rng.standard_cauchy(count)
    student, wild = rng.standard_t(2, count), rng.standard_t(1.5, count)
    known = {
        "gaussian": normal,
        "laplace": laplace,
        "uniform": uniform,
        "cauchy": cauchy,
        "heavy tail": student,
        "heavier tail": wild,
        "relu": np.maximum(normal, 0),
        "negative relu": np.minimum(normal, 0),
        "mostly zero": np.maximum(normal - 0.3, 0),
        "swish": normal / (1 + np.exp(-normal)),
        "clipped": np.clip(2 * normal, -1, 1),
        "shifted": normal + 4,
        "off centre": normal + 2,
        "positive": np.abs(normal) + 0.5,
        "negative": -np.abs(normal) - 0.5,
        "below 0": -np.abs(normal),
        "outlier": np.append(normal, 300.0),
        "bimodal": np.where(normal > 0.3, 5, -2) + other,
        "far bimodal": np.where(normal > 0.3, 10, -40) + normal,
        "integers": np.rint(normal * 20),
        "narrow": normal * 1e-3,
        "wide": normal * 1e6,
        "1e-30": normal * 1e-30,
        "1e30": normal * 1e30,
        "1e-38": normal * 1e-38,
        "1e38": np.clip(normal, -3, 3) * 1e38,
        "subnormal": normal * 1e-42,
        "constant": np.full(count, 0.7),
        "negative constant": np.full(count, -3.0),
        "all zero": np.zeros(count),
        "single value": np.array([-2.5]),
        "nothing": np.zeros(0),
        "infinities and NaN": np.concatenate([normal, [np.inf, -np.inf, np.nan, np.nan]]),
        "only NaN": np.full(3, np.nan),
    }
    return {name: known[name] for name in names}
