"""Analytic re-estimation of a recorded motion with noise in its joints: nearer to the recording than the Kalman smoother."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from visviva.data.motions import read_motion
from visviva.eval.motion.errors import acceleration_error, mpjpe
from visviva.models.reestimation.analytic import Priors
from visviva.models.reestimation.kalman import smoothed
from visviva.pipelines.motion.repair import repaired

SAMPLE = Path(os.environ.get("VISVIVA_REAL", "../shared/real")) / "motion" / "humanml3d_012314_joints.npy"


@pytest.mark.real
@pytest.mark.skipif(not SAMPLE.is_file(), reason=f"{SAMPLE} is not there")
def test_a_recording_with_noise_is_mended():
    true = read_motion(SAMPLE).cut(60, 120)
    noise = 0.03 * torch.randn(true.positions.shape, generator=torch.Generator().manual_seed(0))
    noisy = true.noted(positions=true.positions + noise, contacts=None, contact_joints=())
    calm = [smoothed(noisy.positions, true.fps, 0.03, jerk) for jerk in (100.0, 300.0, 1000.0)]
    best = min(float(mpjpe(x, true.positions)) for x in calm)
    found = repaired(noisy, priors=Priors(jerk=300.0), steps=40).after.positions
    assert float(mpjpe(found, true.positions)) < 0.95 * best
    assert float(acceleration_error(found, true.positions)) < 1.1 * float(acceleration_error(calm[1], true.positions))
