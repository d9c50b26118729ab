"""Paths of simple bodies in closed form, in pixels and frames, as the tests of laws of tracks need them; y points down."""

import math

import numpy as np
import torch

from visviva.physics.tracks import Tracks

G = 9.81


def tracks(path, noise=0.0, seed=0, area=None, dtype=torch.float64):
    """Tracks (1, T, N, 2) of a path (T, 2) or (T, N, 2) with white noise of the standard deviation that they state."""
    path = torch.as_tensor(np.asarray(path), dtype=torch.float64)
    path = path[:, None] if path.ndim == 2 else path
    generator = torch.Generator().manual_seed(seed)
    path = path + noise * torch.randn(path.shape, generator=generator, dtype=torch.float64)
    shape = (1, *path.shape[:2])
    size = None if area is None else torch.as_tensor(area, dtype=dtype).expand(shape)
    return Tracks(
        path[None].to(dtype), torch.ones(shape, dtype=torch.bool), torch.full(shape, max(noise, 1e-3), dtype=dtype), size
    )


def stacked(items):
    """One batch of tracks of one length."""
    joined = {name: torch.cat([getattr(t, name) for t in items]) for name in ("positions", "visible", "sigma")}
    return Tracks(**joined, area=None if items[0].area is None else torch.cat([t.area for t in items]))


def bouncing(frames, height=1.0, restitution=0.75, fps=30.0, scale=0.01, across=0.3, gravity=G, least=0):
    """A ball dropped from ``height`` [m] onto a floor; path (T, 2) [px] and contact times [frames].

    Bounces that last fewer than ``least`` frames end the path, because nobody could tell them apart.
    """
    time = np.arange(frames) / fps
    begin, speed = math.sqrt(2 * height / gravity), math.sqrt(2 * height * gravity)
    up, hits = np.where(time < begin, height - gravity * time**2 / 2, 0.0), []
    while begin < time[-1] and len(hits) < 12:  # an infinity of bounces ends in finite time
        hits.append(begin * fps)
        speed *= restitution
        lasts = 2 * speed / gravity
        since = time - begin
        up = np.where(since >= 0, speed * since - gravity * since**2 / 2, up)
        begin += lasts
        if lasts * fps < least:
            frames = min(frames, int(begin * fps))
            break
    return (np.stack([across * time, -up], axis=1) / scale)[:frames], hits


def colliding(frames, radii, before, restitution, when, turn=0.0, gain=1.0):
    """Two balls of one density meet at time ``when`` with velocities ``before`` (2, 2) [px/frame] along/across the normal.

    ``gain`` is the share of the momentum given by the first that the second gets, 1 in nature. Path (T, 2, 2).
    """
    normal, across = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    velocity = [v[0] * normal + v[1] * across for v in before]
    mass = np.asarray(radii, dtype=float) ** 3
    push = (1 + restitution) * (before[0][0] - before[1][0]) * mass.prod() / mass.sum() * normal
    after = [velocity[0] - push / mass[0], velocity[1] + gain * push / mass[1]]
    time = np.arange(frames)[:, None] - when
    paths = [np.where(time < 0, v * time, w * time) for v, w in zip(velocity, after, strict=True)]
    return np.stack([paths[0], paths[1] + sum(radii) * normal], axis=1)


def swinging(frames, period=24.0, amplitude=0.5, damping=0.0, length=60.0, phase=0.0, substeps=16):
    """A point pendulum about (0, 0) by Runge-Kutta; ``period`` that of small swings [frames], damping [1/frame]; (T, 2)."""
    k, h = (2 * math.pi / period) ** 2, 1 / substeps

    def slope(s):
        return np.array([s[1], -k * math.sin(s[0]) - damping * s[1]])

    state, angles = np.array([amplitude * math.cos(phase), -amplitude * math.sqrt(k) * math.sin(phase)]), []
    for _ in range(frames):
        angles.append(state[0])
        for _ in range(substeps):
            a = slope(state)
            b = slope(state + h / 2 * a)
            c = slope(state + h / 2 * b)
            state = state + h / 6 * (a + 2 * b + 2 * c + slope(state + h * c))
    angles = np.array(angles)
    return length * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def sliding(frames, speed=3.0, deceleration=0.1, turn=0.0):
    """A body that slows down by dry friction until it rests; path (T, 2)."""
    time = np.minimum(np.arange(frames), speed / deceleration if deceleration > 0 else np.inf)
    way = speed * time - deceleration * time**2 / 2
    return way[:, None] * np.array([math.cos(turn), math.sin(turn)])
