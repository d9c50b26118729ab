"""Motions made up for tests: a person of HumanML3D's skeleton who walks along a curve, smoothly."""

from __future__ import annotations

import math

import torch

from visviva.data.motions.amass import OFFSETS, PARENTS
from visviva.data.motions.bvh import about
from visviva.data.motions.motion import forward_kinematics


def joints(frames=60, seed=0, size=0.4, turn=1.5):
    """Smooth random motion of 22 joints, y up, facing +z and above the origin in frame 0: (frames, 22, 3)."""
    g = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None, None]
    waves = sum(torch.randn(1, 24, 3, generator=g, dtype=torch.float64) / k * (torch.sin(math.pi * k * t)) for k in range(1, 4))
    angles = size * waves
    rotations = about(0, angles[..., 0]) @ about(2, angles[..., 2]) @ about(1, angles[..., 1])
    rotations[:, 0] = about(1, turn * t[:, 0, 0] ** 2)
    offsets = OFFSETS.double().expand(frames, -1, -1).clone()
    offsets[:, 0, 0] = (t**2)[:, 0, 0]
    offsets[:, 0, 1] = 0.95 + 0.02 * torch.sin(9 * t[:, 0, 0])
    offsets[:, 0, 2] = 1.5 * t[:, 0, 0]
    return forward_kinematics(rotations, offsets, PARENTS)[0][:, :22]
