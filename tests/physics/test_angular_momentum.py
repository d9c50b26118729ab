"""Angular momentum: closed forms of the weak form, contacts, noise, and what bodies do when drawn."""

import math
from dataclasses import replace

import pytest
import torch

from visviva.errors import InputError
from visviva.physics import Measurement
from visviva.physics.laws.angular_momentum import AngularMomentum
from visviva.physics.motions import draw
from visviva.physics.tracks import Tracks

LAW = AngularMomentum()


def turning(spin, radius=10.0, contact=None, **others):
    """Measurement of discs of a radius [px] with the given spins (B, T-1) [rad/frame]."""
    clips, steps = spin.shape[0], spin.shape[1] + 1
    place = torch.zeros(clips, steps, 1, 2, dtype=spin.dtype) + 20
    moments = (radius**2 / 4) * torch.eye(2, dtype=spin.dtype).expand(clips, steps, 1, 2, 2)
    tracks = Tracks(
        place, torch.ones(clips, steps, 1, dtype=torch.bool), torch.full((clips, steps, 1), 0.1), moments=moments,
        spin=spin[..., None],
    )  # fmt: skip
    still = torch.zeros(clips, steps, dtype=torch.bool) if contact is None else contact
    return Measurement(fps=torch.full((clips,), 30.0), tracks=tracks, contact=still, **others)


def test_a_steady_spin_costs_nothing_whatever_it_is():
    spin = torch.tensor([0.0, 0.1, -0.3], dtype=torch.float64)[:, None].expand(-1, 16)
    residual = LAW(turning(spin))
    assert float(residual.value.max()) < 1e-20
    assert bool(residual.valid.all())


@pytest.mark.parametrize("mode", [1, 2, 4])
def test_a_mode_costs_half_its_squared_amplitude_at_the_rim(mode):
    phase = math.pi * mode * (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    spin = 0.1 + 0.05 * torch.cos(phase)[None]
    assert float(LAW(turning(spin, radius=8.0)).value) == pytest.approx((8.0 * 0.05) ** 2 / 2, rel=1e-6)


def test_a_change_of_spin_is_free_at_a_contact_and_only_there():
    spin = torch.cat([torch.full((1, 8), 0.1), torch.full((1, 8), -0.2)], dim=1)
    assert float(LAW(turning(spin)).value) > 0.5
    contact = torch.zeros(1, 17, dtype=torch.bool)
    contact[0, 8] = True
    assert float(LAW(turning(spin, contact=contact)).value) < 1e-10
    contact[0, 8], contact[0, 4] = False, True
    assert float(LAW(turning(spin, contact=contact)).value) > 0.2


def test_noise_alone_averages_to_zero():
    spin = 0.1 + 0.02 * torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    measured = turning(spin)
    exact = turning(torch.full((400, 16), 0.1))
    known = measured.with_(tracks=measured.tracks.with_(spin_sigma=torch.full((400, 16, 1), 0.02)))
    floor = 4 * (0.02 * 10) ** 2 / 16  # of four modes
    assert float(LAW(measured).value.mean()) == pytest.approx(floor, rel=0.1)
    assert float(LAW(known).value.mean()) < 0.4 * floor  # what is above zero stays, the mean of the rest is gone
    assert float(LAW(exact).value.max()) < 1e-10


def test_free_bodies_keep_their_spin_and_rolling_ones_do_not():
    free, roll = draw("spins", 4, seed=0, size=48), draw("rolls", 4, seed=0, size=48)
    values = []
    for scene in (free, roll):
        moments = torch.eye(2).expand(4, 17, 1, 2, 2) * 6
        seen = torch.ones(4, 17, 1, dtype=torch.bool)
        tracks = Tracks(scene.trajectory, seen, torch.full((4, 17, 1), 0.1), moments=moments, spin=scene.angle.diff(dim=1))
        values.append(LAW(Measurement(fps=torch.full((4,), 32.0), tracks=tracks, contact=scene.contact)).value)
    assert float(values[0].max()) < 1e-8
    assert float(values[1].min()) > 1e-4


def test_what_it_cannot_do_is_said():
    with pytest.raises(InputError, match="modes 5 and least_run 4 do not fit"):
        AngularMomentum(modes=5)
    measured = turning(torch.zeros(1, 16))
    with pytest.raises(InputError, match="needs spin and moments"):
        LAW(measured.with_(tracks=replace(measured.tracks, spin=None)))
    short = turning(torch.full((1, 3), 0.1))
    assert not bool(LAW(short).valid.any())
