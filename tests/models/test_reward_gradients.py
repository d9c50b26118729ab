"""Gradients of a reward through the sampler on a linear denoiser v = A x + b, where all of them are known.

With h_i = sigma_{i+1} - sigma_i, x_{i+1} = x_i + h_i (A x_i + b) and the reward |x_N|^2 / 2, whose gradient is x_N:

    last K steps        sum_i h_i l_{i+1} x_i^T,  l_N = x_N,  l_i = (1 + h_i A)^T l_{i+1}
    inputs detached     sum_i h_i x_N x_i^T
    last step again     the mean over its inputs x of  -sigma y x^T,  y = x - sigma (A x + b)
"""

from itertools import pairwise

import pytest
import torch

from visviva.errors import InputError
from visviva.models.backbones import flow_matching
from visviva.models.backbones.condition import Condition

STEPS, SIZE = 4, 3
LEVELS = flow_matching.sigmas(STEPS, shift=3.0)


class Linear:
    """v = A x + b on latents (B, C, 1, 1, 1)."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64).requires_grad_()
        self.bias = torch.randn(SIZE, generator=generator, dtype=torch.float64).requires_grad_()

    def velocity(self, latents, sigma, condition, guidance_scale=1.0):
        return (latents.flatten(1) @ self.matrix.T + self.bias).view_as(latents)

    def hold(self, latents, condition):
        return latents

    def gradient(self, made):
        return torch.autograd.grad(0.5 * made.square().sum(), (self.matrix, self.bias))


NOTHING = Condition(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
NOISE = torch.randn(1, SIZE, 1, 1, 1, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def made(model, grad_steps, **options):
    return flow_matching.sample(model, NOTHING, NOISE, steps=STEPS, levels=LEVELS, grad_steps=grad_steps, **options)


def path(model):
    """Every state, (SIZE,), and every step's length."""
    lengths = LEVELS.double().diff().tolist()
    with torch.no_grad():
        states = [NOISE.flatten()]
        for h in lengths:
            states.append(states[-1] + h * (model.matrix @ states[-1] + model.bias))
    return states, lengths


def by_hand(model, grad_steps, detach):
    states, lengths = path(model)
    matrix, costate = torch.zeros(SIZE, SIZE, dtype=torch.float64), states[-1]
    bias = torch.zeros(SIZE, dtype=torch.float64)
    for i in reversed(range(STEPS - grad_steps, STEPS)):
        matrix, bias = matrix + lengths[i] * torch.outer(costate, states[i]), bias + lengths[i] * costate
        if not detach:
            costate = costate + lengths[i] * model.matrix.detach().T @ costate
    return matrix, bias


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("grad_steps", [1, 2, STEPS])
def test_truncated_and_detached_gradients_are_the_ones_derived_by_hand(grad_steps, detach, checkpoint):
    model = Linear()
    found = model.gradient(made(model, grad_steps, detach=detach, checkpoint=checkpoint))
    for ours, wanted in zip(found, by_hand(model, grad_steps, detach), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


def test_all_steps_are_the_derivative_and_detached_inputs_are_another_gradient_of_the_same_clip():
    model = Linear()
    found = model.gradient(made(model, STEPS))[0]
    step, wanted = 1e-6, torch.zeros_like(found)
    for i in range(SIZE):
        for j in range(SIZE):
            value = []
            for sign in (1, -1):
                with torch.no_grad():
                    model.matrix[i, j] += sign * step
                    value.append(0.5 * made(model, 0).square().sum())
                    model.matrix[i, j] -= sign * step
            wanted[i, j] = (value[0] - value[1]) / (2 * step)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    assert torch.equal(made(model, STEPS, detach=True), made(model, STEPS))
    detached = model.gradient(made(model, STEPS, detach=True))[0]
    assert float((detached - found).norm() / found.norm()) > 0.1
    for ours, plain in zip(model.gradient(made(model, 1, detach=True)), model.gradient(made(model, 1)), strict=True):
        assert torch.equal(ours, plain)  # the first step with gradient has an input without


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_alignprops_detached_outputs_are_truncation(cut):
    """Outputs of the first steps detached, latents never, all in the graph: the weights' gradient is that of K = N - cut."""
    model = Linear()
    x = NOISE.clone().requires_grad_()
    start = x
    for i, h in enumerate(LEVELS.double().diff().tolist()):
        v = model.velocity(x, None, None)
        x = x + h * (v.detach() if i < cut else v)
    for ours, wanted in zip(model.gradient(made(model, STEPS - cut)), model.gradient(x), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    x = start  # and the noise, which nobody trains, is all that sees the linear part
    for i, h in enumerate(LEVELS.double().diff().tolist()):
        v = model.velocity(x, None, None)
        x = x + h * (v.detach() if i < cut else v)
    assert bool(torch.autograd.grad(x.sum(), start)[0].any())


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_last_step_again_has_the_gradient_derived_by_hand(checkpoint):
    model = Linear()
    sigma = float(LEVELS[-2])
    clean = made(model, 1)
    noise = torch.randn(2, *NOISE.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    again = [
        flow_matching.again(model, NOTHING, clean, part, sigma=sigma, guidance_scale=1.0, checkpoint=checkpoint)
        for part in noise
    ]
    found = torch.autograd.grad(sum(0.5 * x.square().sum() for x in (clean, *again)) / 3, (model.matrix, model.bias))
    states, _ = path(model)
    inputs = [states[-2], *((1 - sigma) * states[-1] + sigma * part.flatten() for part in noise)]
    with torch.no_grad():
        outputs = [x - sigma * (model.matrix @ x + model.bias) for x in inputs]
    wanted = sum(-sigma * torch.outer(y, x) for x, y in zip(inputs, outputs, strict=True)) / 3
    torch.testing.assert_close(found[0], wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], sum(-sigma * y for y in outputs) / 3, rtol=1e-12, atol=1e-12)


class Exact:
    """The linear flow whose Euler steps keep the marginals sigma^2 + (1 - sigma)^2 s^2 of clean numbers N(0, s^2)."""

    spread = 0.5

    def __init__(self):
        self.scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        self.rates = {round(a, 6): self.rate(a, b) for a, b in pairwise(LEVELS.tolist())}

    def variance(self, sigma):
        return sigma**2 + (1 - sigma) ** 2 * self.spread**2

    def rate(self, sigma, following):
        return ((self.variance(following) / self.variance(sigma)) ** 0.5 - 1) / (following - sigma)

    def velocity(self, latents, sigma, condition, guidance_scale=1.0):
        return self.scale * self.rates[round(float(sigma[0]), 6)] * latents

    def hold(self, latents, condition):
        return latents


@pytest.mark.parametrize("count", [2, 4])
def test_more_noises_have_the_mean_of_one_and_the_lower_variance_that_is_derived(count):
    """Each number of the batch is a run of its own. Gradient of y^2 / 2 by the scale: c x^2, so all moments are those of x^2.

    Cov(x^2, x'^2) = 2 Cov(x, x')^2 of Gaussian numbers: with r the last step's factor, p = 1 - sigma and V = var(sigma),
    Cov(own, again) = p r V and Cov(again, again) = p^2 s^2.
    """
    model, runs = Exact(), 200_000
    sigma = float(LEVELS[-2])
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(runs, 1, 1, 1, 1, generator=generator, dtype=torch.float64)

    scales = model.scale = torch.ones(runs, 1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    clean = flow_matching.sample(model, NOTHING, draw(), steps=STEPS, levels=LEVELS, grad_steps=1, checkpoint=False)
    parts = [clean] + [
        flow_matching.again(model, NOTHING, clean, draw(), sigma=sigma, guidance_scale=1.0, checkpoint=False)
        for _ in range(count - 1)
    ]
    each = [torch.autograd.grad(0.5 * y.square().sum(), scales, retain_graph=True)[0].flatten() for y in parts]
    one, many = each[0], torch.stack(each).mean(0)
    variance = model.variance(sigma)
    rate, factor = model.rate(sigma, 0.0), (model.variance(0.0) / variance) ** 0.5
    constant = -sigma * rate * factor
    own, again = (1 - sigma) * factor * variance, (1 - sigma) ** 2 * model.spread**2
    pairs = 2 * (count - 1) * own**2 + (count - 1) * (count - 2) * again**2
    wanted = 2 * constant**2 * (count * variance**2 + pairs) / count**2
    error = 4 * (2 / runs) ** 0.5
    assert float(one.mean()) == pytest.approx(constant * variance, rel=error)
    assert float(many.mean()) == pytest.approx(constant * variance, rel=error)
    assert float(one.var()) == pytest.approx(2 * constant**2 * variance**2, rel=0.03)
    assert float(many.var()) == pytest.approx(wanted, rel=0.03)
    assert wanted < 0.9 * 2 * constant**2 * variance**2


def test_the_last_step_again_is_refused_where_it_forgets_the_clip():
    with pytest.raises(InputError, match="2 sampler steps or more"):
        flow_matching.again(Linear(), NOTHING, NOISE, NOISE, sigma=1.0, guidance_scale=1.0, checkpoint=False)
