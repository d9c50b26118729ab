"""Preference losses: the bound behind PhyGDPO, its weights, Diffusion-DPO in twenty lines, and learning on a toy flow."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.pipelines.posttrain.preference import PhysicsWeights, dpo


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(0.01, 1), st.floats(1, 5)), min_size=1, max_size=6))
def test_the_decoupling_inequality_holds(parts):
    left = math.log1p(sum(math.exp(x) for x, _, _ in parts))
    right = sum(extra / alpha * math.log1p(math.exp(alpha * x)) for x, alpha, extra in parts)
    assert left <= right + 1e-9 * abs(right)


def test_the_weights_are_the_papers_and_keep_the_bound():
    score = torch.tensor([1.0, 0.5, 0.0])
    alpha, gamma = PhysicsWeights()(score, score)
    assert [round(x, 2) for x in alpha.tolist()] == [0.54, 0.75, 0.96]
    assert [round(x, 2) for x in gamma.tolist()] == [2.37, 2.66, 2.92]
    semantic, physics = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0)).unbind(0)
    alpha, gamma = PhysicsWeights()(semantic, physics)
    assert bool((gamma >= 1 / alpha).all())
    harder = PhysicsWeights()(semantic * 0.5, physics * 0.5)
    assert bool((harder[0] * harder[1] >= alpha * gamma).all())


def reference_loss(model_pred, ref_pred, target, beta):
    """Diffusion-DPO as its paper writes it (equation 14): winners in the first half of the batch, losers in the second."""
    model_losses = (model_pred - target).pow(2).mean(dim=list(range(1, model_pred.ndim)))
    model_w, model_l = model_losses.chunk(2)
    ref_losses = (ref_pred - target).pow(2).mean(dim=list(range(1, ref_pred.ndim)))
    ref_w, ref_l = ref_losses.chunk(2)
    inside = -0.5 * beta * ((model_w - model_l) - (ref_w - ref_l))
    return -torch.log(torch.sigmoid(inside))


def test_with_one_loser_it_is_diffusion_dpo():
    model, ref, target = torch.randn(3, 8, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind(0)
    error = lambda x: (x - target).square().flatten(1).mean(1)  # noqa: E731
    (winner, loser), (winner_ref, loser_ref) = error(model).chunk(2), error(ref).chunk(2)
    loss, margin = dpo(winner, loser, winner_ref, loser_ref, beta=3.0)
    assert torch.allclose(loss, reference_loss(model, ref, target, 3.0), rtol=1e-10)
    assert torch.equal(margin > 0, (winner - winner_ref) < (loser - loser_ref))


def test_at_the_start_the_loss_and_its_slope_are_known():
    error = torch.tensor([0.3, 0.7], requires_grad=True)
    other = torch.tensor([0.4, 0.1])
    alpha, gamma = torch.tensor([0.6, 0.9]), torch.tensor([2.0, 2.5])
    loss, _ = dpo(error, other, error.detach(), other, 10.0, alpha, gamma, losers=3)
    assert torch.allclose(loss, 3 * gamma * math.log(2))
    (slope,) = torch.autograd.grad(loss.sum(), error)
    assert torch.allclose(slope, 3 * gamma * alpha * 10.0 / 2)


def test_large_margins_do_not_overflow():
    error = torch.tensor([1e4, -1e4], requires_grad=True)
    loss, _ = dpo(error, torch.zeros(2), torch.zeros(2), torch.zeros(2), 5000.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(error.grad).all()


def test_a_toy_flow_learns_to_like_the_winners():
    """A model of a ring and a blob; winners from the ring, losers from the blob: the ring's error falls, the blob's rises."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)]
    net = torch.nn.Sequential(*layers)

    def drawn(count=256):
        angle = 2 * math.pi * torch.rand(count, 1)
        return torch.cat([angle.cos(), angle.sin()], 1) * 2, 0.5 * torch.randn(count, 2)

    def error(network, clean, noise, sigma):
        x = sigma * noise + (1 - sigma) * clean
        return (network(torch.cat([x, sigma], 1)) - (noise - clean)).square().mean(1)

    def train(updates, rate, loss):
        optimizer = torch.optim.Adam(net.parameters(), lr=rate)
        for _ in range(updates):
            optimizer.zero_grad()
            loss().mean().backward()
            optimizer.step()

    train(600, 3e-3, lambda: error(net, torch.cat(drawn(128)), torch.randn(256, 2), torch.rand(256, 1)))
    start = copy.deepcopy(net)
    deltas = []

    def preferred():
        winner, loser = drawn()
        noise, sigma = torch.randn(256, 2), torch.rand(256, 1)
        with torch.no_grad():
            references = [error(start, clean, noise, sigma) for clean in (winner, loser)]
        mine = [error(net, clean, noise, sigma) for clean in (winner, loser)]
        loss, margin = dpo(*mine, *references, beta=10.0)
        found = [float((a - b).mean().detach()) for a, b in zip(mine, references, strict=True)]
        deltas.append([*found, float((margin > 0).double().mean())])
        return loss

    train(150, 3e-4, preferred)
    winner, loser, right = torch.tensor(deltas[-30:]).mean(0).tolist()
    assert winner < -0.01
    assert loser > 0.1
    assert right > 0.6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PhysicsWeights(least=0.0), "least 0.0"),
        (lambda: PhysicsWeights()(torch.tensor([4.0]), torch.tensor([5.0])), r"in \[0, 1\]"),
        (lambda: dpo(*torch.zeros(4, 1).unbind(0), beta=0.0), "beta 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
