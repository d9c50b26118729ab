"""Another frame rate: exact on cubics and turns at a steady rate, the ends kept, convergence of fourth order."""

from __future__ import annotations

import pytest
import torch

from visviva.data.motions.amass import from_amass
from visviva.data.motions.bvh import about
from visviva.data.motions.humanml3d import joints_of, to_features
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.resample import resampled
from visviva.errors import InputError


def moving(fps, path, seconds=2.0):
    t = torch.arange(round(seconds * fps) + 1, dtype=torch.float64) / fps
    return HumanMotion(path(t)[:, None, None].expand(-1, 2, 3).clone(), ("a", "b"), (-1, 0), fps), t


@pytest.mark.parametrize("fps", [12.0, 20.0, 45.0, 120.0])
def test_cubic_motions_stay_exact(fps):
    motion, _ = moving(30.0, lambda t: 1 + t - 2 * t**2 + 0.5 * t**3)
    found = resampled(motion, fps)
    _, t = moving(fps, lambda t: t)
    assert len(found) == len(t)
    assert torch.allclose(found.positions[:, 0, 0], 1 + t - 2 * t**2 + 0.5 * t**3, atol=1e-12)
    assert found.fps == fps


def test_steady_turns_stay_exact():
    motion, t = moving(30.0, lambda t: t)
    turns = about(2, 3 * t[:, None].expand(-1, 2))
    found = resampled(motion.noted(rotations=turns), 20.0)
    wanted = about(2, 3 * torch.arange(41, dtype=torch.float64)[:, None].expand(-1, 2) / 20)
    assert torch.allclose(found.rotations, wanted, atol=1e-9)


def test_the_error_falls_with_the_fourth_power_of_the_step():
    errors = []
    for fps in (15.0, 30.0, 60.0):
        motion, _ = moving(fps, lambda t: torch.sin(5 * t))
        fine = resampled(motion, 8 * fps)
        t = torch.arange(len(fine), dtype=torch.float64) / (8 * fps)
        inner = slice(len(t) // 4, -len(t) // 4)
        errors.append(float((fine.positions[:, 0, 0] - torch.sin(5 * t))[inner].abs().max()))
    assert 13 < errors[0] / errors[1] < 19
    assert 13 < errors[1] / errors[2] < 19


def test_smpl_parameters_become_features():
    frames = 241
    t = torch.arange(frames) / 120
    poses = torch.zeros(frames, 156)
    poses[:, 0] = torch.pi / 2
    poses[:, 3] = 0.5 * torch.sin(3 * t)
    trans = torch.stack((0 * t, -t, 0.95 + 0 * t), -1)
    motion = from_amass({"poses": poses.numpy(), "trans": trans.numpy(), "mocap_framerate": 120.0})
    found = joints_of(to_features(resampled(motion, 20.0)))
    assert found.shape == (40, 22, 3)
    assert torch.allclose(found[:, 0, 2], torch.arange(40) / 20, atol=1e-4), "a metre per second along +z"


def test_bad_rates():
    motion, _ = moving(30.0, lambda t: t)
    for fps, said in ((0.0, "not positive"), (0.1, "less than two frames")):
        with pytest.raises(InputError, match=said):
            resampled(motion, fps)
