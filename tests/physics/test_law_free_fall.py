"""Free fall: g is told from other accelerations, and what does not fall is not judged."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_paths import G, bouncing, sliding, stacked, swinging, tracks

from visviva.errors import InputError
from visviva.physics.laws.free_fall import FreeFall
from visviva.physics.measurement import Measurement

FPS, SCALE = 30.0, 0.01


def measured(seen, scale=SCALE, contact=None, fps=FPS):
    clips = seen.positions.shape[0]
    return Measurement(fps=torch.full((clips,), fps), tracks=seen, scale=torch.full((clips,), scale), contact=contact)


def thrown(gravity=G, frames=20, speed=(1.0, -2.0), fps=FPS, scale=SCALE):
    time = np.arange(frames)[:, None] / fps
    return (np.array(speed) * time + np.array([0, gravity / 2]) * time**2) / scale


@pytest.mark.parametrize("factor", [0.4, 0.6, 1.0, 1.6, 2.2])
def test_the_value_is_the_relative_deviation_from_g(factor):
    residual = FreeFall(significance=0.0)(measured(tracks(thrown(factor * G))))
    assert bool(residual.valid)
    assert float(residual.value) == pytest.approx(abs(factor - 1), abs=1e-6)


def test_noise_is_forgiven_and_the_error_is_that_of_the_scatter():
    law = FreeFall(significance=0.0)
    noisy = law(measured(stacked([tracks(thrown(1.5 * G, frames=12), noise=0.3, seed=k) for k in range(300)])))
    assert float(noisy.value.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(noisy.value.std()) == pytest.approx(float(noisy.sigma[0]), rel=0.15)
    perfect = FreeFall()(measured(stacked([tracks(thrown(), noise=0.3, seed=k) for k in range(100)]))).value
    assert float((perfect < 0.01).double().mean()) >= 0.95


def test_contacts_are_cut_out_found_or_given():
    path, hits = bouncing(60, height=1.0, restitution=0.7, fps=FPS, scale=SCALE, least=6)
    seen = tracks(path, noise=0.1)
    assert float(FreeFall()(measured(seen)).value) < 0.02
    assert float(FreeFall()(measured(tracks(bouncing(60, gravity=0.5 * G, fps=FPS, scale=SCALE, least=6)[0], 0.1))).value) > 0.4
    none = torch.zeros(1, seen.frames, dtype=torch.bool)
    assert not bool(FreeFall()(measured(seen, contact=none)).valid), "a bounce in one run is no parabola"
    near = (torch.arange(seen.frames)[:, None] - torch.tensor(hits)).abs().amin(1) < 1
    assert float(FreeFall()(measured(seen, contact=near[None])).value) < 0.02


NO_FLIGHT = {
    "frozen": np.zeros((30, 2)),
    "slide": sliding(30, turn=0.3),
    "ramp": (0.05 * np.arange(30) ** 2)[:, None] * [0.8, 0.6],
    "swing": swinging(30, period=30, amplitude=0.6),
    "short": thrown(frames=3),
    "noise": 20 * np.random.default_rng(0).standard_normal((30, 2)),
}


@pytest.mark.parametrize("name", NO_FLIGHT)
def test_what_does_not_fly_is_not_judged(name):
    residual = FreeFall()(measured(tracks(NO_FLIGHT[name], noise=0.1)))
    assert not bool(residual.valid)
    assert float(residual.value) == 0
    assert FreeFall.trivial, "such clips are not told to be wrong, so the law wants an anchor"


def test_clips_without_scale_and_broken_clips_are_not_judged_and_leave_the_others_alone():
    seen = tracks(thrown(0.5 * G), noise=0.05)
    both = stacked([seen] * 3)
    both.positions[0, 3] = float("nan")
    batch = measured(both).with_(scale=torch.tensor([SCALE, SCALE, float("nan")]))
    residual = FreeFall()(batch)
    assert residual.valid.tolist() == [False, True, False]
    assert float(residual.value[1]) == pytest.approx(float(FreeFall()(measured(seen)).value), rel=1e-9)
    assert residual.value[[0, 2]].tolist() == [0, 0]


def test_what_is_missing_or_meaningless_is_named():
    with pytest.raises(InputError, match="scale"):
        FreeFall()(measured(tracks(thrown())).with_(scale=None))
    with pytest.raises(InputError, match="tracks"):
        FreeFall()(Measurement(fps=torch.ones(1), scale=torch.ones(1)))
    with pytest.raises(InputError, match="precision"):
        FreeFall(precision=0)


@settings(max_examples=20, deadline=None)
@given(
    x=st.floats(-300, 300),
    zoom=st.floats(0.5, 4),
    early=st.integers(0, 4),
    gravity=st.floats(0.4, 2.2),
    seed=st.integers(0, 99),
)
def test_the_value_does_not_depend_on_place_pixels_or_when_the_clip_begins(x, zoom, early, gravity, seed):
    seen = tracks(thrown(gravity * G), noise=0.05, seed=seed)
    value = FreeFall()(measured(seen)).value
    moved = seen.with_(positions=zoom * seen.positions + x, sigma=zoom * seen.sigma)
    assert torch.allclose(FreeFall()(measured(moved, SCALE / zoom)).value, value, atol=1e-6)
    exact = tracks(thrown(gravity * G))
    later = exact.with_(**{key: getattr(exact, key)[:, early:] for key in ("positions", "visible", "sigma")})
    assert torch.allclose(FreeFall()(measured(later)).value, FreeFall()(measured(exact)).value, atol=2e-3)


@settings(max_examples=10, deadline=None)
@given(angle=st.floats(0, 2 * math.pi), seed=st.integers(0, 99))
def test_without_an_upright_camera_the_direction_does_not_matter(angle, seed):
    seen = tracks(thrown(0.5 * G), noise=0.05, seed=seed)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    law = FreeFall(upright=False)
    turned = law(measured(seen.with_(positions=seen.positions @ turn.T)))
    assert torch.allclose(turned.value, law(measured(seen)).value, atol=1e-9)


def test_the_gradient_is_exact():
    seen = tracks(thrown(0.5 * G, frames=8), noise=0.05)
    position = seen.positions.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: FreeFall()(measured(seen.with_(positions=p))).value, position)
