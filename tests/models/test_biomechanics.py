"""EMG, its encoder and losses in closed form; accelerations that agree in free fall; a residual that begins at nothing."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from visviva.data.motions.emg import MUSCLES, activations, drives, emg, envelope
from visviva.errors import InputError
from visviva.eval.motion.legs import legs
from visviva.models.biomechanics import (
    Augmentation,
    Contrast,
    EMGEncoder,
    EulerLagrange,
    Residual,
    acceleration,
    acceleration_loss,
    contrast_loss,
    effective_rank,
    koleo,
    physical_acceleration,
)
from visviva.models.biomechanics.contrast import nce

REAL = Path(os.environ.get("VISVIVA_REAL", Path(__file__).parents[3] / "shared" / "real")) / "motion"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_drives_are_rectified_shares_of_both_senses():
    torque = torch.zeros(2, 21, 3)
    torque[0, 3, 0], torque[1, 3, 0] = 1.5, -1.5  # left knee: half of its strength
    found = drives(torque, together=0.2)
    assert found.shape == (2, MUSCLES)
    knee = 2 * 3
    assert torch.allclose(found[:, knee : knee + 2], torch.tensor([[0.5, 0.1], [0.1, 0.5]]))
    assert float(found.sum()) == pytest.approx(1.2)
    with pytest.raises(InputError, match="21, 3"):
        drives(torque[:, :20])


def test_activation_rises_faster_than_it_falls():
    step = torch.cat([torch.zeros(1, 50, 1), torch.ones(1, 100, 1), torch.zeros(1, 100, 1)], 1)
    found = activations(step, fps=1000.0)[0, :, 0]
    assert float(found[50 + 9]) == pytest.approx(1 - math.exp(-1), abs=1e-3)
    assert float(found[150 + 39]) == pytest.approx(float(found[149]) * math.exp(-1), abs=1e-3)
    assert float(found.max()) <= 1


def test_envelopes_recover_activation_and_signals_keep_their_band():
    wave = (0.5 + 0.4 * torch.sin(torch.arange(91)[:, None] / 10 + torch.arange(3))).expand(1, 91, 3)
    signal = emg(wave, fps=30.0, seed=0)
    assert signal.shape == (1, 3, 3001)
    power = torch.fft.rfft(emg(torch.ones(1, 91, 1), 30.0, seed=1, floor=0.0)).abs().square()[0, 0]
    at = torch.fft.rfftfreq(3001, 1e-3)
    assert float(power[(at < 19) | (at > 451)].sum() / power.sum()) < 1e-6
    slow = torch.nn.functional.avg_pool1d(envelope(signal), 15, 1, 7)[0]
    true = torch.nn.functional.interpolate(wave.mT, size=300, mode="linear", align_corners=True)[0]
    for one, other in zip(slow, true, strict=True):
        assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.9
    assert torch.equal(signal, emg(wave, fps=30.0, seed=0))


def test_koleo_and_nce_in_closed_form():
    pair = torch.tensor([[1.0, 0], [-1, 0]])
    assert float(koleo(pair)) == pytest.approx(-math.log(2), abs=1e-6)
    angle = 2 * math.pi * torch.arange(3) / 3
    three = torch.stack([angle.cos(), angle.sin()], 1)
    assert float(koleo(three)) == pytest.approx(-math.log(3) / 2, abs=1e-5)
    near = torch.nn.functional.normalize(torch.tensor([[1.0, 0.01], [1.0, -0.01], [-1.0, 0]]), dim=1).requires_grad_()
    (pull,) = torch.autograd.grad(koleo(near), near)
    assert float(pull[0, 1]) < 0 < float(pull[1, 1]), "a step against the gradient pushes the nearest pair apart"
    assert float(nce(three, three, 0.01)) < 1e-6
    assert float(nce(three, three.roll(1, 0), 0.1)) > 10
    assert float(contrast_loss(three, three, three, three)) == pytest.approx(0.1 * -math.log(3) / 2, abs=1e-4)


def test_effective_rank_counts_even_directions():
    cloud = torch.randn(20000, 5, generator=seeded()) @ torch.linalg.qr(torch.randn(12, 12, generator=seeded(1)))[0][:5]
    assert effective_rank(cloud) == pytest.approx(5, abs=0.01)
    assert effective_rank(torch.arange(50.0)[:, None] * torch.ones(4)) == pytest.approx(1, abs=1e-6)


def test_augmentations_keep_the_shape_and_happen_as_often_as_they_should():
    signal = torch.randn(1000, 3, 200, generator=seeded())
    none = dict.fromkeys(("cut_out", "magnitude", "noise", "gain", "drift", "hum", "artefact", "rotation"), 0.0)
    assert torch.equal(Augmentation(**none)(signal, seeded()), signal)
    for name in none:
        found = Augmentation(**(none | {name: 0.3}))(signal, seeded(1))
        assert found.shape == signal.shape
        share = float((found != signal).flatten(1).any(1).float().mean())
        assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 1000), name
    turned = Augmentation(**(none | {"rotation": 1.0}))(signal, seeded())
    assert torch.equal(turned, signal.roll(1, 1))


def test_contrast_learns_to_tell_windows_apart_and_its_keys_follow():
    torch.manual_seed(0)
    level = torch.rand(48, 4, generator=seeded()) * 0.9 + 0.05
    signal = level[..., None] * torch.randn(48, 4, 120, generator=seeded(1))
    contrast = Contrast(EMGEncoder(4, out=16, width=16, blocks=1), predicted=4, hidden=32, out=16)
    optimizer = torch.optim.Adam([p for p in contrast.parameters() if p.requires_grad], lr=3e-3)
    before = [p.clone() for p in contrast.momentum.parameters()]
    found = []
    for step in range(60):
        loss = contrast(signal, level, Augmentation(), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        contrast.follow()
        found.append(float(loss.detach()))
    assert sum(found[-5:]) < 0.75 * sum(found[:5])
    assert all(p.grad is None for p in contrast.momentum.parameters())
    moved = [float((a - b).abs().max()) for a, b in zip(before, contrast.momentum.parameters(), strict=True)]
    apart = [
        float((a - b).abs().max())
        for a, b in zip(contrast.encoder.parameters(), contrast.momentum[0].parameters(), strict=True)
    ]
    assert max(moved) > 0
    assert max(apart) > 0


def test_bodies_in_free_fall_have_no_inconsistency():
    """F = m g, no bias: exactly zero on a parabola, whatever the mass; twice the gravity is told."""
    time = torch.arange(12, dtype=torch.float64)[:, None, None] / 30
    gravity = torch.tensor([0.0, 0, -9.81], dtype=torch.float64)
    start, speed = torch.randn(2, 1, 5, 3, generator=seeded(), dtype=torch.float64)
    clip = (start + speed * time + gravity * time**2 / 2)[None]
    kinematic = acceleration(clip, 30.0)
    mass = 1 + torch.rand(5, generator=seeded(), dtype=torch.float64).repeat_interleave(3)
    force = (mass * gravity.repeat(5)).expand(1, 10, 15)
    found = physical_acceleration(torch.diag(mass**-0.5), force, torch.zeros_like(force), grain=0.0)
    assert float(acceleration_loss(found.unflatten(-1, (5, 3)), kinematic)) < 1e-9
    assert float(acceleration_loss(2 * found.unflatten(-1, (5, 3)), kinematic)) == pytest.approx(9.81 / 3)
    weight = torch.tensor([0.25], dtype=torch.float64)
    assert float(acceleration_loss(2 * found.unflatten(-1, (5, 3)), kinematic, weight)) == pytest.approx(9.81 / 12)
    with pytest.raises(InputError, match="three or more"):
        acceleration(clip[:, :2], 30.0)


def test_the_network_pushes_forwards_and_masks_muscles():
    torch.manual_seed(0)
    net = EulerLagrange(6, emg=8, hidden=32, rank=4)
    place, speed, muscle = torch.randn(5, 6, 3), torch.randn(5, 6, 3), torch.randn(5, 8)
    bare = net(place, speed)
    assert bare.shape == (5, 6, 3)
    assert torch.allclose(net(place + torch.tensor([3.0, -2, 0]), speed), bare, atol=1e-4)
    seen = torch.tensor([True, False, True, False, True])
    mixed = net(place, speed, muscle, seen)
    assert torch.equal(mixed[~seen], bare[~seen])
    assert float((mixed - bare)[seen].abs().max()) > 1e-6
    factor = torch.randn(5, 18, 4)
    force = torch.randn(5, 18)
    along = (physical_acceleration(factor, force, torch.zeros_like(force)) * force).sum(-1)
    assert float(along.min()) > 0
    with pytest.raises(InputError, match="6, 3"):
        net(place[:, :5], speed[:, :5])


def test_the_residual_begins_at_nothing_and_moves_with_its_scale():
    net, clean, apart = Residual(6, hidden=16), torch.randn(2, 9, 6, 3), torch.randn(2, 7, 6, 3)
    assert torch.equal(net(clean, apart), clean)
    torch.nn.init.normal_(net.leave.weight)
    moved = net(clean, apart, torch.tensor([1.0, 0.0]))
    assert torch.equal(moved[1], clean[1])
    assert float((moved[0] - clean[0]).abs().max()) > 1e-3
    far = net(clean + torch.tensor([2.0, 1, 0]), apart) - torch.tensor([2.0, 1, 0])
    assert torch.allclose(far, net(clean, apart), atol=1e-4)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings; set VISVIVA_REAL")
def test_drives_of_a_recorded_leg_look_like_recorded_muscles():
    """Some envelopes match the drives of the left hip and knee better than they match any drive turned in time."""
    data = np.load(REAL / "bioptim_gait_emg_grf_tau.npz", allow_pickle=False)
    wrench = torch.from_numpy(np.stack([data[f"f_ext_{side}_leg"].T for side in ("left", "right")], 1))
    found = legs(torch.from_numpy(data["markers_exp"].transpose(2, 1, 0).copy()), 64.6)
    torque, frames = found.torques(100.0, wrench[..., 6:], wrench[..., :3], wrench[..., 3:6], window=0.15)
    muscles = torch.from_numpy(data["emg_normalized_exp"].T.copy())[frames.start : frames.stop]
    muscles = muscles[:, muscles.std(0) > 1e-6]
    drive = activations((-torque[:, 0, :2]).clamp(min=0) / torque[:, 0, :2].abs().amax(0), 100.0)

    def alike(one):
        one, other = one - one.mean(0), muscles - muscles.mean(0)
        return ((one / one.norm(dim=0)).mT @ (other / other.norm(dim=0))).amax(1)

    best = alike(drive)
    turned = torch.stack([alike(drive.roll(k, 0)) for k in range(8, len(drive) - 8)])
    assert float(best.min()) > 0.85
    assert bool((best > turned.amax(0)).all())
