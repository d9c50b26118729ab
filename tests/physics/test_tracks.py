"""Tracks of masks: closed forms of centre, area, moments, spin; what they refuse."""

import math

import pytest
import torch

from visviva.errors import InputError
from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks, tracks_of_masks


def disc(x, y, radius=8.0, side=48):
    ys, xs = torch.meshgrid(torch.arange(side, dtype=torch.float64), torch.arange(side, dtype=torch.float64), indexing="ij")
    return torch.sigmoid(8 * (radius - torch.hypot(xs - x, ys - y)))


def rolling(turn=0.1, side=48):
    """A disc that moves by (1, 2) px/frame and turns clockwise by ``turn`` per frame; its exact flow."""
    masks = torch.stack([disc(16 + t, 14 + 2 * t) for t in range(5)])[None, :, None]
    ys, xs = torch.meshgrid(torch.arange(side, dtype=torch.float64), torch.arange(side, dtype=torch.float64), indexing="ij")
    flow = [torch.stack([1 - turn * (ys - 14 - 2 * t), 2 + turn * (xs - 16 - t)]) for t in range(4)]
    return masks, torch.stack(flow)[None]


def test_a_disc_has_its_centre_area_and_moments():
    tracks = tracks_of_masks(rolling()[0])
    expected = torch.tensor([[16.0 + t, 14.0 + 2 * t] for t in range(5)], dtype=torch.float64)
    assert torch.allclose(tracks.positions[0, :, 0], expected, atol=1e-3)
    assert torch.allclose(tracks.area, torch.full_like(tracks.area, 64 * math.pi), rtol=5e-3)
    round_ = 16 * torch.eye(2, dtype=torch.float64).expand_as(tracks.moments)
    assert torch.allclose(tracks.moments, round_, atol=0.2)
    assert bool(tracks.visible.all())


@pytest.mark.parametrize("turn", [-0.2, 0.0, 0.1])
def test_spin_of_a_rolling_disc(turn):
    masks, flow = rolling(turn)
    assert torch.allclose(tracks_of_masks(masks, flow).spin, torch.full((1, 4, 1), turn, dtype=torch.float64), atol=1e-3)


def test_the_centre_is_as_uncertain_as_the_noise_of_an_edge_makes_it():
    """Monte Carlo: every edge pixel of a disc moves in or out by 0.3 px, independently."""
    generator = torch.Generator().manual_seed(0)
    ys, xs = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    edge = 8.0 + 0.3 * torch.randn(600, 1, 1, 48, 48, generator=generator)
    found = tracks_of_masks((edge - torch.hypot(xs - 24, ys - 24) + 0.5).clamp(0, 1))
    assert float(found.positions[..., 0].std()) == pytest.approx(float(found.sigma.mean()), rel=0.5)


def test_an_empty_mask_is_not_visible_and_everything_is_finite():
    masks = torch.zeros(1, 3, 1, 16, 16)
    tracks = tracks_of_masks(masks, torch.ones(1, 2, 2, 16, 16))
    assert not bool(tracks.visible.any())
    assert bool(torch.isfinite(tracks.positions).all())
    assert bool(torch.isfinite(tracks.spin).all())


def test_gradients_reach_masks_and_flow():
    masks, flow = (x.requires_grad_() for x in rolling())
    tracks = tracks_of_masks(masks, flow)
    (tracks.positions.sum() + tracks.moments.sum() + tracks.spin.sum()).backward()
    assert float(masks.grad.abs().sum()) > 0
    assert float(flow.grad.abs().sum()) > 0


def test_shapes_that_disagree_are_refused():
    good = torch.zeros(2, 5, 1, 2)
    with pytest.raises(InputError, match=r"visible has shape \(2, 4, 1\)"):
        Tracks(good, torch.ones(2, 4, 1, dtype=torch.bool), torch.ones(2, 5, 1))
    tracks = Tracks(good, torch.ones(2, 5, 1, dtype=torch.bool), torch.ones(2, 5, 1))
    with pytest.raises(InputError, match="tracks have shape"):
        Measurement(fps=torch.ones(2), flow=torch.zeros(2, 6, 2, 8, 8), tracks=tracks)
    measured = Measurement(fps=torch.ones(2), tracks=tracks, scale=torch.tensor([0.01, float("nan")]))
    assert measured.frames == 5
    assert measured[:1].tracks.positions.shape == (1, 5, 1, 2)
    with pytest.raises(InputError, match="neither tracks nor masks"):
        Measurement(fps=torch.ones(2)).tracked()
