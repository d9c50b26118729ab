"""Jumps on force plates: closed forms, and a recorded one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from visviva.data.bodies import read_osim
from visviva.data.motions.opensim import ground_forces, read_table
from visviva.errors import InputError
from visviva.eval.motion.jump import jump
from visviva.eval.motion.mass import carried_mass

REAL = Path(os.environ.get("VISVIVA_REAL", Path(__file__).parents[3] / "shared" / "real")) / "motion"


def record(speed=2.5, mass=70.0, fps=1000.0, push=0.3, noise=0.0):
    """Quiet standing, a constant push that ends with the speed, flight, landing, standing."""
    weight = 9.81 * mass
    force = weight + mass * speed / push
    parts = [(weight, 1.0), (force, push), (0.0, 2 * speed / 9.81), (force, push), (weight, 1.0)]
    samples = torch.cat([torch.full((round(length * fps),), value, dtype=torch.float64) for value, length in parts])
    return samples + noise * torch.randn(len(samples), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("speed", [1.5, 2.5])
def test_a_drawn_jump_is_measured(speed):
    found = jump(record(speed), 1000)
    assert found.mass == pytest.approx(70, rel=1e-6)
    assert found.speed == pytest.approx(speed, rel=0.01)
    assert found.speed_of_flight == pytest.approx(speed, rel=0.01)
    assert found.flight == pytest.approx(2 * speed / 9.81, abs=0.002)
    assert found.height == pytest.approx(speed**2 / 19.62, rel=0.02)
    assert found.peak == pytest.approx(1 + speed / 0.3 / 9.81, rel=1e-3)


def test_masses_that_do_not_agree_are_said():
    found = jump(record(noise=2.0), 1000)
    assert found.carried.differs(70.5) == ""
    assert "the model has 55.0 kg, the force plates carry 70.0 kg" in found.carried.differs(55.0)


def test_plates_carry_the_mass_whatever_the_person_does():
    """A jump: the mean force is the weight, flight included; who has left the plates is told."""
    force = record(2.0)
    assert float(force.min()) < 10 < float(force.max())
    found = carried_mass(force, 1000)
    assert found.mass == pytest.approx(70, abs=found.error)
    assert found.error < 0.03 * 70
    assert found.differs(66.0)
    assert not found.differs(70.0)
    still = torch.full((2000,), 70 * 9.81)
    assert carried_mass(still, 1000).mass == pytest.approx(70)
    assert carried_mass(still, 1000).error == pytest.approx(70 * 0.5 / (9.81 * 2))
    with pytest.raises(InputError, match=r"nobody is on the plates for 2\.00 s"):
        carried_mass(torch.cat([still, torch.zeros(2000), still]), 1000)
    for ends in ([torch.zeros(300), still], [still, torch.zeros(300)]):
        with pytest.raises(InputError, match="at the start or the end of the record"):
            carried_mass(torch.cat(ends), 1000)
    with pytest.raises(InputError, match="upwards"):
        carried_mass(-still, 1000)


def test_what_is_no_jump_is_refused():
    with pytest.raises(InputError, match="never unloaded"):
        jump(torch.full((3000,), 700.0), 1000)
    with pytest.raises(InputError, match="quiet standing are needed"):
        jump(record()[900:], 1000)
    restless = record()
    restless[:1000] += 100 * torch.sin(torch.arange(1000) / 30.0)
    with pytest.raises(InputError, match="nobody stands still"):
        jump(restless, 1000)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings; set VISVIVA_REAL")
def test_a_recorded_jump_agrees_with_itself():
    """Flight of 0.551 s as its source says; take-off speeds of flight and impulse within a tenth."""
    table = torch.from_numpy(np.loadtxt(REAL / "bmc_jump1.txt", skiprows=1))
    found = jump(table[:, 1], 450)
    assert found.flight == pytest.approx(0.551, abs=0.006)
    assert found.speed == pytest.approx(found.speed_of_flight, rel=0.1)
    assert found.carried.differs(0.9 * found.mass)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings; set VISVIVA_REAL")
def test_a_scaled_model_is_heavier_than_its_plates_say():
    """The OpenSim model has 62.6 kg; in its squats the plates carry 60.1."""
    table = read_table(REAL / "s4_squats1_grf.mot")
    total = sum(plate.force[:, 1] for plate in ground_forces(table))
    found = carried_mass(total, 1 / float(table.time.diff().median()))
    assert found.mass == pytest.approx(60.1, abs=0.1)
    said = found.differs(read_osim(REAL / "s4_optimized.osim").coupled.body.total_mass)
    assert "the model has 62.6 kg, the force plates carry 60.1 kg" in said
