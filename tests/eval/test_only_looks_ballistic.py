"""Motions that only look ballistic, as paths and at any scale: no g, or a finding that says what is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest
from flown_tracks import EXACT, flown

from visviva.eval.kind import Scales, measure_motion
from visviva.eval.verdict import judge

S = np.linspace(0, 1, 4001)
ARCH = np.stack([200 + 800 * S, 600 - 1600 * S * (1 - S)], axis=1)


def evenly(curve):
    way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    even = np.linspace(0, way[-1], len(curve))
    return np.stack([np.interp(even, way, curve[:, a]) for a in range(2)], axis=1)


def carried(seed):
    shake = np.random.default_rng(seed).normal(0, 4, (10, 2))
    return evenly(ARCH) + np.stack([np.interp(S, np.linspace(0, 1, 10), shake[:, a]) for a in range(2)], axis=1)


def eased(curve):
    q = S * S * (3 - 2 * S)
    return np.stack([np.interp(q, S, curve[:, a]) for a in range(2)], axis=1)


CURVES = {
    "constant speed on a parabola": evenly(ARCH),
    "constant speed on an arc": np.stack([600 + 400 * np.sin(2 * S - 1), 900 - 600 * np.cos(2 * S - 1)], axis=1),
    "half a sine": np.stack([ARCH[:, 0], 600 - 400 * np.sin(np.pi * S)], axis=1),
    "two sines": np.stack([ARCH[:, 0], 400 + 150 * np.sin(4 * np.pi * S)], axis=1),
    "eased along an arch": eased(ARCH),
    "carried by hand": carried(0),
    "lowered steadily by hand": np.stack([600 + 0 * S, 100 + 500 * S], axis=1) + 0.3 * (carried(1) - evenly(ARCH)),
    "an arch at another pace": ARCH,
}


@pytest.mark.parametrize("count", [30, 70])
@pytest.mark.parametrize("name", list(CURVES))
def test_what_only_looks_ballistic_gives_no_clean_g(name, count):
    track = flown(count=count, noise=0.1)
    at = np.linspace(0, 1, count)
    path = np.stack([np.interp(at, S, CURVES[name][:, a]) for a in range(2)], axis=1)
    track.positions[:] = path + np.random.default_rng(0).normal(0, 0.1, path.shape)
    motion = measure_motion(track, Scales(EXACT))
    measured = motion.flight or motion.pendulum or motion.ramp
    verdict = judge(track, motion, measured.breaks if measured else [])
    assert motion.gravity is None or verdict.findings, motion.gravity.sentence
    assert motion.pendulum is None or "sine" in name  # a sine is the swing of something
    assert "\n" not in verdict.sentence


def test_a_true_throw_passes():
    for count in (30, 60):
        motion = measure_motion(flown(count=count, noise=0.1), Scales(EXACT))
        assert motion.gravity.low < 9.81 < motion.gravity.high
        assert judge(flown(count=count, noise=0.1), motion, motion.flight.breaks).findings == []
