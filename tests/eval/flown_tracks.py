"""Tracks of throws with known gravity, drag, roll and shutter, without pictures."""

from __future__ import annotations

import math

import numpy as np

from visviva.eval.camera import CameraMotion
from visviva.eval.gravity import Scale
from visviva.eval.track import Track

PIXELS_PER_METRE = 500.0
EXACT = Scale(1 / PIXELS_PER_METRE, 0.0, "exact")


def flown(
    gravity=9.81, drag=0.0, readout=0.0, noise=0.1, count=60, fps=60.0, size=(1280, 720), roll=0.0, velocity=(1.5, -4.5), seed=0
):
    """A track of a throw, integrated in fine steps, seen through a rolling shutter; y down."""
    random = np.random.default_rng(seed)
    step, span = 5e-4, count / fps + 0.1
    state = np.array([200 / PIXELS_PER_METRE, 620 / PIXELS_PER_METRE, *velocity])
    pull = np.array([gravity * math.sin(roll), gravity * math.cos(roll)])
    path = []
    for _ in range(int(span / step)):
        path.append(state[:2].copy())
        v = state[2:] + 0.5 * step * (pull - drag * np.linalg.norm(state[2:]) * state[2:])
        state = np.concatenate([state[:2] + step * v, state[2:] + step * (pull - drag * np.linalg.norm(v) * v)])
    path, fine = np.array(path) * PIXELS_PER_METRE, np.arange(int(span / step)) * step
    times = 0.02 + np.arange(count) / fps
    exposed = times.copy()
    for _ in range(20):
        exposed = times + readout / fps * (np.interp(exposed, fine, path[:, 1]) / size[1] - 0.5)
    positions = np.stack([np.interp(exposed, fine, path[:, a]) for a in range(2)], axis=1)
    positions += random.normal(0, noise, positions.shape)
    still = CameraMotion(
        np.tile(np.eye(2, 3), (count, 1, 1)), np.zeros(count), np.ones(count), "fixed", "the camera stood still"
    )
    width = np.full(count, 30.0) + random.normal(0, 0.2, count)
    boxes = np.concatenate([positions - 15, np.full((count, 2), 30.0)], axis=1)
    return Track(positions, max(noise, 0.02), times, width**2, width, np.ones(count), still, size, boxes)
