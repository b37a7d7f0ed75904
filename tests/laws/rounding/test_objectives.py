"""What the optimizers minimize: the same from moments and from positions, with the right gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.numerics.activation_functions import Activation, Clip, Gelu, LeakyRelu, PRelu, Relu, Tanh
from quark_onnx.numerics.rounding.moments import Moments
from quark_onnx.numerics.rounding.objectives import DAMPING, Objective, Quadratic, Sampled

G, N, R, K = 2, 400, 3, 5
EPS = 2.0**-24
law = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**16)


class Problem:
    """y, z, an origin and a candidate near it, and the loss in float64."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        mix = rng.standard_normal((K, K))
        self.z = np.maximum(rng.standard_normal((G, N, K)) @ mix + 0.5, 0).astype(np.float32)
        self.origin = rng.standard_normal((G, R, K)).astype(np.float32)
        self.bias = rng.standard_normal((G, R)).astype(np.float32)
        noise = 0.1 * rng.standard_normal((G, N, R))
        self.y = (self.z @ np.swapaxes(self.origin, 1, 2) + self.bias[:, None] + noise).astype(np.float32)
        self.weight = (self.origin + 0.1 * rng.standard_normal(self.origin.shape)).astype(np.float32)
        self.moments = Moments.of(self.y, self.z)

    def loss(self, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        """(G, R) in float64; None: the best bias."""
        rest = self.y - self.z.astype(np.float64) @ np.swapaxes(weight.astype(np.float64), 1, 2)
        return np.square(rest - (rest.mean(1, keepdims=True) if bias is None else bias[:, None])).mean(1)

    def slack(self, weight: np.ndarray, ridge: float = 0.0) -> np.ndarray:
        """Rounding of float32 in a form with K² products around the origin, and of moments, and the damping."""
        q = Quadratic.around(self.origin, self.moments)
        e = np.abs(weight - self.origin)
        terms = np.einsum("grk,gkl,grl->gr", e, np.abs(q.hessian), e) + 2 * (e * np.abs(q.residual)).sum(-1) + q.floor
        size = np.abs(self.y) + np.abs(self.z) @ np.swapaxes(np.abs(weight), 1, 2)  # all terms with the same sign
        spread = np.square(size + np.abs(self.bias)[:, None]).mean(1)
        damping = np.einsum("gkk,grk->gr", q.hessian, e**2) * 1.1 * (ridge + K * DAMPING)
        return 4 * K * EPS * terms + 128 * EPS * spread + damping


@law
@given(seeds)
def test_quadratic_with_the_bias_eliminated(seed: int) -> None:
    p = Problem(seed)
    q = Quadratic.around(p.origin, p.moments)
    assert np.all(np.abs(q(p.weight)[0] - p.loss(p.weight)) <= p.slack(p.weight))
    np.testing.assert_array_equal(q(p.weight)[0], q.loss(p.weight))


@law
@given(seeds)
def test_quadratic_with_a_fixed_bias(seed: int) -> None:
    p = Problem(seed)
    q = Quadratic.around(p.origin, p.moments, bias=p.bias)
    assert np.all(np.abs(q(p.weight)[0] - p.loss(p.weight, p.bias)) <= p.slack(p.weight))


@law
@given(seeds, st.sampled_from([0.01, 0.3, 3.0]))
def test_ridge_is_a_pull_toward_the_origin(seed: int, ridge: float) -> None:
    p = Problem(seed)
    plain, ridged = Quadratic.around(p.origin, p.moments), Quadratic.around(p.origin, p.moments, ridge)
    e = (p.weight - p.origin).astype(np.float64)
    pull = ridge * np.einsum("gkk,grk->gr", plain.hessian.astype(np.float64), e**2)
    assert np.all(np.abs(ridged(p.weight)[0] - plain(p.weight)[0] - pull) <= p.slack(p.weight) + 1e-5 * pull)
    np.testing.assert_array_equal(ridged(p.origin)[0], plain(p.origin)[0])


def objectives(p: Problem) -> dict[str, Objective]:
    """Every kind, over all data, so that differences have no noise."""
    offset, lever = p.moments.means()
    slopes = np.full((G, R), 0.3, np.float32)
    functions = [Activation(), Relu(), Clip(0, 6), LeakyRelu(0.1), PRelu(slopes), Tanh(), Gelu()]
    sampled = {
        f"{type(f).__name__}, {bias}": Sampled(p.y, p.z, *rest, f, batch=N)
        for f in functions
        for bias, rest in (("eliminated", (offset, lever)), ("fixed", (p.bias, None)))
    }
    moments = {
        "moments, eliminated": Quadratic.around(p.origin, p.moments),
        "moments, fixed": Quadratic.around(p.origin, p.moments, 0.1, p.bias),
    }
    return sampled | moments


@pytest.mark.parametrize("name", list(objectives(Problem(0))))
def test_gradient_is_the_slope_of_the_loss(name: str) -> None:
    """Central differences along random directions; a step of 0.01 moves few positions across a kink."""
    p = Problem(3)
    objective, rng = objectives(p)[name], np.random.default_rng(0)
    grad = objective(p.weight)[1]
    for _ in range(5):
        step = (0.01 * rng.standard_normal(p.weight.shape)).astype(np.float32)
        up, down = (objective.loss(p.weight + sign * step).astype(np.float64) for sign in (1, -1))
        along = (grad * step).sum(-1, dtype=np.float64)
        np.testing.assert_allclose((up - down) / 2, along, rtol=0.03, atol=0.03 * np.abs(along).max())


@pytest.mark.parametrize("name", list(objectives(Problem(0))))
def test_rows_are_the_same_objective(name: str) -> None:
    p = Problem(1)
    objective, part = objectives(p)[name], slice(1, 3)
    whole, some = objective(p.weight), objective.rows(part)(p.weight[:, part])
    for a, b in zip(whole, some, strict=True):
        np.testing.assert_allclose(a[:, part], b, rtol=1e-5, atol=1e-5 * np.abs(a).max())
    np.testing.assert_allclose(
        objective.loss(p.weight)[:, part], objective.rows(part).loss(p.weight[:, part]), rtol=1e-5
    )


@law
@given(seeds)
def test_moments_and_positions_agree_without_an_activation(seed: int) -> None:
    p = Problem(seed)
    q = Quadratic.around(p.origin, p.moments)
    sampled = Sampled(p.y, p.z, *p.moments.means(), Activation(), batch=N)
    (loss, grad), (loss_s, grad_s) = q(p.weight), sampled(p.weight)
    np.testing.assert_allclose(loss_s, sampled.loss(p.weight), rtol=1e-5)
    assert np.all(np.abs(loss - loss_s) <= p.slack(p.weight))
    size = 2 * np.abs(p.weight - p.origin) @ np.abs(q.hessian) + 2 * np.abs(q.residual)
    spread = np.square(p.z).mean() * (np.abs(p.weight).sum() + 1)
    assert np.all(np.abs(grad - grad_s) <= 1e-5 * size + 128 * EPS * spread)


def test_sampled_judges_a_given_bias() -> None:
    p = Problem(0)
    sampled = Sampled(p.y, p.z, *p.moments.means(), Activation())
    np.testing.assert_allclose(sampled.loss(p.weight, p.bias), p.loss(p.weight, p.bias), rtol=1e-5)
    best = sampled.loss(p.weight, sampled.bias(p.weight))
    np.testing.assert_array_equal(best, sampled.loss(p.weight))


def test_mini_batches_are_reproducible_and_rows_have_their_own() -> None:
    p = Problem(0)

    def losses(seed: int, asked_before: bool) -> list[np.ndarray]:
        sampled = Sampled(p.y, p.z, *p.moments.means(), Relu(), 32, (seed,)).shuffled()
        if asked_before:
            sampled.rows(slice(0, 1))(p.weight[:, :1])
        some = sampled.rows(slice(1, 3))
        return [some(p.weight[:, 1:])[0] for _ in range(4)]

    once, again, other = losses(1, False), losses(1, True), losses(2, False)
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert not np.array_equal(once[0], once[1])


def test_shuffling_keeps_the_positions_together() -> None:
    p = Problem(0)
    sampled = Sampled(p.y, p.z, *p.moments.means(), Relu())
    np.testing.assert_allclose(sampled.shuffled().loss(p.weight), sampled.loss(p.weight), rtol=1e-5)
    assert not np.array_equal(sampled.shuffled().y, sampled.y)


def test_an_input_that_is_never_seen_costs_next_to_nothing() -> None:
    p = Problem(0)
    p.z[..., 2] = 0
    q = Quadratic.around(p.origin, Moments.of(p.y, p.z))
    loss, grad = q(p.origin + np.eye(K, dtype=np.float32)[2])
    assert np.isfinite(loss).all() and np.isfinite(grad).all()
    np.testing.assert_allclose(loss, q.floor, rtol=1e-3, atol=1e-4)
    assert np.all(np.einsum("gkk->gk", q.hessian) > 0)
    nothing = Quadratic.around(p.origin, Moments.of(p.y, 0 * p.z))
    assert np.all(nothing.curvature > 0)


@pytest.mark.parametrize("limit", [0.0, 6.0])
def test_gradient_is_torchs(limit: float) -> None:
    torch = pytest.importorskip("torch")
    p = Problem(5)
    activation = Clip(0, limit) if limit else Relu()
    loss, grad = Sampled(p.y, p.z, p.bias, None, activation, batch=N)(p.weight)
    weight = torch.tensor(p.weight, requires_grad=True)
    top = limit or float("inf")
    out = torch.einsum("gnk,grk->gnr", torch.tensor(p.z), weight) + torch.tensor(p.bias)[:, None]
    theirs = ((out.clamp(0, top) - torch.tensor(p.y).clamp(0, top)) ** 2).mean(1)
    theirs.sum().backward()
    np.testing.assert_allclose(loss, theirs.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(grad, weight.grad.numpy(), rtol=1e-4, atol=1e-5 * np.abs(grad).max())
