"""GRPO's stochastic samplers: marginals of the flow on Gaussian data, probabilities by torch's own, advantages, clipping."""

import math

import pytest
import torch

from visviva.errors import InputError
from visviva.models.backbones.flow_matching import sigmas
from visviva.pipelines.posttrain.sde import RATES, Step, advantages, clipped, rate, steps

MEAN, STD = 2.0, 0.5


def velocity(x, sigma):
    """The exact velocity of Gaussian data N(2, 0.5^2): E[noise - clean | x]."""
    variance = (1 - sigma) ** 2 * STD**2 + sigma**2
    off = x - (1 - sigma) * MEAN
    return (sigma - (1 - sigma) * STD**2) / variance * off - MEAN


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize(("count", "tolerance"), [(40, 0.02), (400, 0.006)])
def test_the_marginals_of_gaussian_data_are_kept(kind, count, tolerance):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 1, generator=generator)
    for step in steps(sigmas(count).tolist(), kind, 0.3 if kind == "dance_grpo" else None):
        x = step.mean(x, velocity(x, step.sigma)) + step.std * torch.randn(x.shape, generator=generator)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(x.std()) == pytest.approx(STD, abs=tolerance)


def test_without_noise_it_is_the_flows_euler_step():
    x, v = torch.randn(2, 3, 5).unbind(0)
    step = Step(0.6, 0.4, rate("flow_grpo", 0.6, 0.4, 0.0))
    assert torch.allclose(step.mean(x, v), x - 0.2 * v)
    assert [s.std for s in steps(sigmas(4).tolist(), "dance_grpo")][-1] == 0.0


def test_the_first_rate_is_finite_and_the_others_are_the_formula():
    assert rate("flow_grpo", 1.0, 0.9) == pytest.approx(0.7 * math.sqrt(1 / 0.1))
    assert rate("flow_grpo", 0.5, 0.4) == pytest.approx(0.7)
    assert rate("dance_grpo", 1.0, 0.9) == 0.25


def test_log_probabilities_are_the_mean_of_torchs():
    step = Step(0.6, 0.4, 0.8)
    mean, reached = torch.randn(2, 4, 3, 2).unbind(0)
    wanted = torch.distributions.Normal(mean, step.std).log_prob(reached).flatten(1).mean(1)
    assert torch.allclose(step.log_probability(mean, reached), wanted, atol=1e-5)
    free = torch.ones(1, 3, 2)
    free[:, 0] = 0
    wanted = torch.distributions.Normal(mean, step.std).log_prob(reached)[:, 1:].flatten(1).mean(1)
    assert torch.allclose(step.log_probability(mean, reached, free), wanted, atol=1e-5)
    with pytest.raises(InputError, match="without noise"):
        Step(0.2, 0.0, 0.0).log_probability(mean, reached)


def test_the_expected_gradient_of_the_log_probability_is_zero_and_rewards_pull_towards_themselves():
    generator = torch.Generator().manual_seed(1)
    shift = torch.zeros((), requires_grad=True)
    step = Step(0.8, 0.6, 0.5)
    x = torch.zeros(20_000, 1)
    reached = step.mean(x, x) + step.std * torch.randn(x.shape, generator=generator)
    now = step.log_probability(step.mean(x, x + shift), reached)
    (plain,) = torch.autograd.grad(now.mean(), shift, retain_graph=True)
    assert abs(float(plain)) < 0.05
    advantage = advantages(-reached.view(1, -1))[0]  # the lower, the better
    loss, ratio = clipped(advantage, now, now.detach(), 1e-4)
    (pull,) = torch.autograd.grad(loss.mean(), shift)
    assert torch.equal(ratio, torch.ones_like(ratio))
    assert float(pull) < 0  # descending raises v, and with it x falls: time runs backwards


def test_advantages_compare_within_groups_and_equal_rewards_teach_nothing():
    reward = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [0.0, float("nan"), 1.0], [0.0, 0.0, 1e9]])
    found = advantages(reward)
    assert torch.allclose(found[0], torch.tensor([-1.0, 0.0, 1.0]), atol=1e-3)
    assert not bool(found[1:3].any())
    assert float(found.abs().max()) <= 5
    with pytest.raises(InputError, match="group of one"):
        advantages(torch.zeros(3, 1))


def test_the_clip_stops_what_has_gone_far_enough():
    now = torch.tensor([0.01, -0.01], requires_grad=True)
    loss, _ = clipped(torch.tensor([1.0, -1.0]), now, torch.zeros(2), 1e-3)
    (slope,) = torch.autograd.grad(loss.sum(), now)
    assert not bool(slope.any())
    loss, _ = clipped(torch.tensor([-1.0, 1.0]), now, torch.zeros(2), 1e-3)
    (slope,) = torch.autograd.grad(loss.sum(), now)
    assert bool((slope != 0).all())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rate("ddpm", 0.5, 0.4), "'ddpm'"),
        (lambda: rate("dance_grpo", 0.5, 0.4, float("nan")), "strength nan"),
        (lambda: steps([1.0, 0.5], "dance_grpo"), "fall to 0"),
        (lambda: steps([1.0, 1.0, 0.0], "dance_grpo"), "fall to 0"),
    ],
)
def test_what_is_no_sampler_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
