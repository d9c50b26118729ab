"""The cross-estimator gate stops pixels that are shaped to fool one estimator."""

import pytest
import torch

from visviva.errors import InputError
from visviva.models.probes import DIS, LucasKanade, PatchFeatures
from visviva.physics import ConstantAcceleration, Gate, Measurement
from visviva.physics.gate import gain
from visviva.physics.kinematics import object_velocity
from visviva.physics.sprites import random_sprites, sprites

FPS = torch.full((4,), 30.0)


def pair(shift):
    """Four pairs of frames with a textured object of radius 11 px in 96 x 96, moved by ``shift`` px to the right."""
    base = random_sprites(4, seed=3, frames=2, height=96, width=96, radius=(10.0, 12.0))
    path = torch.full((4, 2, 1, 2), 47.5)
    path[:, 1, :, 0] += shift
    return sprites(base.background, base.texture[:, 0], base.alpha[:, 0], path).render()


def read(probe, frames, masks):
    return object_velocity(probe(frames, FPS).flow, masks[:, :1])[0][:, 0, 0, 0]


def attacked(still, probe, steps=25):
    """Second frames optimised pixel by pixel until the probe reads one pixel of motion that is not there."""
    change = torch.zeros_like(still.frames[:, 1], requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=2e-3)
    for _ in range(steps):
        frames = torch.stack([still.frames[:, 0], still.frames[:, 1] + change], dim=1)
        loss = (read(probe, frames, still.masks) - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack([still.frames[:, 0], still.frames[:, 1] + change.detach()], dim=1)


def test_the_pixel_attack_fools_lucas_kanade_and_not_the_gate():
    """Twenty-five Adam steps on the second frame buy a pixel of flow; the gated reward falls below honest motion's."""
    still, honest, probe = pair(0.0), pair(1.0), LucasKanade()
    gate = Gate(DIS())
    hacked = attacked(still, probe)
    assert float((hacked - still.frames).abs().max()) < 0.06
    seen = read(probe, hacked, still.masks)
    assert bool(((seen - 1).abs() < 0.15).all())  # the probe is fooled
    other = read(DIS(), hacked, still.masks)
    assert float(other.mean()) < 0.8 * float(seen.mean())  # the other one less

    def rewards(frames):
        measured = probe(frames, FPS, still.masks)
        ungated = torch.exp(-(read(probe, frames, still.masks) - 1).square())
        return ungated, ungated * torch.exp(-gate.doubt(gate.disagreement(measured, frames)))

    ungated, gated = rewards(hacked)
    _, fair = rewards(honest.frames)
    assert bool((ungated > 0.97).all())
    assert bool((gated < 0.75 * fair).all())
    assert float(gated.mean()) < 0.5 * float(fair.mean())
    assert float(fair.min()) > 0.9


def test_a_gain_counts_only_as_far_as_a_held_out_probe_sees_it():
    fps = torch.full((2,), 30.0)
    rough = torch.zeros(2, 8, 2, 8, 8)
    rough[:, ::2] = 1.0
    masks = torch.ones(2, 9, 1, 8, 8)
    before = Measurement(fps=fps, flow=rough, masks=masks)
    smooth = Measurement(fps=fps, flow=torch.zeros_like(rough), masks=masks)
    half = Measurement(fps=fps, flow=0.5 * rough, masks=masks)
    law = ConstantAcceleration(subtract_noise=False)
    seen = gain(law, (before, smooth), (before, half))
    assert torch.allclose(seen.confirmed, 0.75 * seen.trained)
    hacked = gain(law, (before, smooth), (before, before))
    assert float(hacked.confirmed.abs().max()) == 0
    worse = gain(law, (smooth, before), (smooth, smooth))
    assert bool((worse.confirmed < 0).all())


def test_without_masks_the_gate_looks_where_either_probe_sees_motion():
    moved = pair(1.0)
    measured = LucasKanade()(moved.frames, FPS)
    fooled = measured.with_(flow=measured.flow + torch.tensor([0.0, 1.0]).view(1, 1, 2, 1, 1))
    gate = Gate(DIS())
    assert bool((gate.disagreement(fooled, moved.frames) > gate.disagreement(measured, moved.frames) + 0.5).all())
    still = pair(0.0)
    assert float(gate.disagreement(LucasKanade()(still.frames, FPS), still.frames).max()) == 0


def test_a_gate_that_cannot_close_is_refused():
    with pytest.raises(InputError, match="does not measure"):
        Gate(PatchFeatures())
    with pytest.raises(InputError, match="must be positive"):
        Gate(DIS(), scale=0.0)
