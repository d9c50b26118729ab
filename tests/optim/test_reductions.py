"""Where one optimizer must be another exactly: each pair shares formulas, not code paths."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from trajectories import MATRICES, SHAPES, distance, moved, parameters, set_gradients, trajectory

import visviva.optim as optim
from visviva.optim import Apply, Ema, Kept, Nesterov, SecondMoment, Transform, chain
from visviva.optim.exadam import CrossDebias
from visviva.optim.muon import Orthogonalize
from visviva.optim.namo import NoiseAdaptiveScale

ATOL = 1e-12


def reduces(special, plain, shapes=SHAPES, atol=ATOL, **options):
    path = trajectory(special, shapes, **options)
    assert moved(path)
    assert distance(path, trajectory(plain, shapes, **options)) <= atol


@pytest.mark.parametrize("b1", [0.9, 0.98])
def test_adan_without_differences_is_adam(b1):
    reduces(
        lambda p: optim.Adan(p, lr=0.01, betas=(b1, 0.0, 0.99)),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(b1, 0.99)),
    )


def test_adan_starts_with_adams_first_step():
    theirs = lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.98, 0.99))  # noqa: E731
    one = trajectory(lambda p: optim.Adan(p, lr=0.01), steps=1)
    assert distance(one, trajectory(theirs, steps=1)) <= ATOL
    assert distance(trajectory(lambda p: optim.Adan(p, lr=0.01), steps=3), trajectory(theirs, steps=3)) > 1e-4


def test_adan_without_prox_decays_as_adamw():
    reduces(
        lambda p: optim.Adan(p, lr=0.01, betas=(0.9, 0.0, 0.99), weight_decay=0.1, no_prox=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1),
    )


def test_am_adamw_with_one_fixed_beta_is_adamw():
    reduces(
        lambda p: optim.AMAdamW(p, lr=0.01, memory=0.0, beta_max=0.9, fixed=True, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.999), weight_decay=0.1),
    )


def test_am_msgd_without_memory_of_either_kind_is_sgd():
    options = dict(lr=0.05, weight_decay=0.1)
    reduces(lambda p: optim.AMMSGD(p, memory=0.0, beta_max=0.0, **options), lambda p: torch.optim.SGD(p, **options))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("schedule", ["standard", "svd"])
def test_root_that_clips_nothing_is_undamped_muon(nesterov, schedule):
    options = dict(lr=0.01, weight_decay=0.1, nesterov=nesterov, schedule=schedule)
    reduces(
        lambda p: optim.ROOT(p, quantile=1.0, coefficients={}, **options),
        lambda p: optim.Muon([{"params": p, "undamped": True}], scale="rms", **options),
        MATRICES,
    )


def test_undamped_momentum_changes_the_scale_of_the_buffer_only():
    options = dict(lr=0.01, schedule="svd")
    reduces(lambda p: optim.Muon([{"params": p, "undamped": True}], **options), lambda p: optim.Muon(p, **options), MATRICES)


@dataclass(frozen=True)
class FrozenRatio(Transform):
    """The state that `NormMoment` keeps, never changed from 1."""

    batched: ClassVar = True

    def states(self):
        return {"ratio": Kept("tensor", 1.0, moment=False)}

    def __call__(self, x):
        pass


@pytest.mark.parametrize(("guards", "scale"), [(True, "rms"), (False, "none")])
@pytest.mark.parametrize("nesterov", [False, True])
def test_namo_with_a_frozen_ratio_is_muon(guards, scale, nesterov):
    def frozen(p):
        look = [Nesterov(0.95)] if nesterov else []
        shrink = NoiseAdaptiveScale(mu=0.0, mu2=0.0, weight_decay=0.1, guards=guards)
        links = [Ema(0.95), *look, FrozenRatio(), Orthogonalize("svd", "none"), shrink, Apply(absolute=True)]
        return chain(p, links, lr=0.01)

    options = dict(lr=0.01, weight_decay=0.1, nesterov=nesterov, schedule="svd", scale=scale)
    reduces(frozen, lambda p: optim.Muon(p, **options), MATRICES)


@pytest.mark.parametrize("schedule", ["standard", "svd"])
def test_fismo_with_identity_factors_is_muon_on_an_average(schedule):
    options = dict(lr=0.01, momentum=0.9, weight_decay=0.1, schedule=schedule)
    reduces(
        lambda p: optim.FISMO(p, gamma=1.0, **options),
        lambda p: optim.Muon(p, nesterov=False, scale="none", **options),
        MATRICES,
    )


@pytest.mark.parametrize("schedule", ["quintic", "svd"])
def test_orthogonal_lion_k_is_nesterov_muon(schedule):
    """``mu M_new + (1-mu) g = mu^2 M_old + (1-mu^2) g``."""
    mu = 0.95
    reduces(
        lambda p: optim.LionK(
            [{"params": p, "schedule": schedule}], lr=0.01, betas=(mu**2, mu), weight_decay=0.1, map="orthogonal"
        ),
        lambda p: optim.Muon(p, lr=0.01, momentum=mu, weight_decay=0.1, schedule=schedule, scale="none"),
        MATRICES,
    )


def test_lion_is_lion_k_with_sign():
    options = dict(lr=0.01, weight_decay=0.1)
    assert distance(trajectory(lambda p: optim.Lion(p, **options)), trajectory(lambda p: optim.LionK(p, **options))) == 0.0


class HuggingFaceAdamW:
    """eps before the bias correction, decay after the step."""

    def __init__(self, params, lr, wd, b1=0.9, b2=0.999, eps=1e-3):
        self.params, self.t, self.numbers = params, 0, (lr, wd, b1, b2, eps)
        self.m, self.v = ([torch.zeros_like(p) for p in params] for _ in range(2))

    @torch.no_grad()
    def step(self):
        lr, wd, b1, b2, eps = self.numbers
        self.t += 1
        for p, m, v in zip(self.params, self.m, self.v, strict=True):
            m.mul_(b1).add_(p.grad, alpha=1 - b1)
            v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
            p.addcdiv_(m, v.sqrt() + eps, value=-lr * math.sqrt(1 - b2**self.t) / (1 - b1**self.t))
            p.add_(p, alpha=-lr * wd)


@pytest.mark.parametrize("reset_every", [0, 10**6])
def test_spam_without_clipping_and_resets_is_adamw_of_hugging_face(reset_every):
    reduces(
        lambda p: optim.SPAM(p, lr=0.01, eps=1e-3, weight_decay=0.1, theta=0.0, reset_every=reset_every),
        lambda p: HuggingFaceAdamW(p, 0.01, 0.1),
    )


def test_exadam_without_its_ingredients_is_adam():
    plain = CrossDebias(0.9, 0.999, 1e-8, acceleration=False, cross=False)
    reduces(
        lambda p: chain(p, [Ema(0.9), SecondMoment(0.999), plain, Apply(0.1)], lr=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgdp_that_projects_nothing_is_sgd(nesterov):
    options = dict(lr=0.05, momentum=0.9, nesterov=nesterov)
    reduces(lambda p: optim.SGDP(p, delta=0.0, **options), lambda p: torch.optim.SGD(p, **options))


def test_adamp_that_projects_nothing_is_adamw():
    options = dict(lr=0.01, weight_decay=0.1)
    reduces(lambda p: optim.AdamP(p, delta=0.0, **options), lambda p: torch.optim.AdamW(p, **options))


def test_sgd_sai_is_normalized_by_one_factor():
    """The paper's rate divided by the largest ratio of the first step is the code's."""
    paths = {n: trajectory(lambda p, n=n: optim.SGDSaI(p, lr=1e-2, weight_decay=0.0, normalize=n)) for n in (True, False)}
    params = parameters()
    set_gradients(params, 1)
    largest = max((p.grad.norm() / (p.grad.std() + 1e-8)).item() for p in params)
    reduces(
        lambda p: optim.SGDSaI(p, lr=1e-2, weight_decay=0.0, normalize=True),
        lambda p: optim.SGDSaI(p, lr=1e-2 / largest, weight_decay=0.0),
    )
    assert distance(paths[True], paths[False]) > 1e-3


@pytest.mark.parametrize("name", ["AdamW", "Adan", "Lion", "SGDM", "EXAdam", "AdaBelief", "NAMO", "AMMSGD"])
def test_a_reset_that_restarts_the_count_is_a_fresh_optimizer(name):
    """``MomentumReset(restart_count=True)``: at steps 9 and 18 everything but the weights starts again."""

    class Renewed:
        def __init__(self, params):
            self.params, self.t, self.inner = params, 0, None

        def step(self):
            self.t += 1
            if self.inner is None or self.t % 9 == 0:
                self.inner = getattr(optim, name)(self.params, lr=0.01)
            self.inner.step()

    reset = optim.MomentumReset(9, restart_count=True)
    reduces(lambda p: getattr(optim, name)(p, lr=0.01, extra=[reset]), Renewed, steps=30)
