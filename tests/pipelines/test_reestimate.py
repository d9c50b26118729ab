"""``visviva motion reestimate``: a noisy motion in, one that obeys dynamics out, and what changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_motion_verb import walker

from visviva.cli import main
from visviva.data.motions import read_motion
from visviva.data.motions.arrays import write_npz
from visviva.eval.motion.errors import acceleration_error, mpjpe
from visviva.models.reestimation.kalman import smoothed
from visviva.pipelines.motion.repair import repaired

NOISE = 0.03


@pytest.fixture(scope="module")
def motions():
    """A walker, and the same with 3 cm of noise in every coordinate and no rotations."""
    true = walker(frames=40, speed=1.0)
    shaken = true.positions + NOISE * torch.randn(true.positions.shape, generator=torch.Generator().manual_seed(0))
    return true, true.noted(positions=shaken, rotations=None, rest=None)


def test_a_noisy_motion_comes_nearer_to_the_truth_and_moves_more_like_it(motions):
    true, noisy = motions
    found = repaired(noisy, steps=40)
    errors = {
        name: (float(mpjpe(x, true.positions)), float(acceleration_error(x, true.positions)))
        for name, x in {
            "noisy": noisy.positions,
            "kalman": smoothed(noisy.positions, 20.0, NOISE, 300.0),
            "analytic": found.after.positions,
        }.items()
    }
    assert errors["analytic"][0] < errors["kalman"][0] < errors["noisy"][0]
    assert errors["analytic"][1] < 0.2 * errors["noisy"][1]
    assert found.noise == pytest.approx(NOISE, rel=0.2)
    assert sum(found.estimate.after.values()) < sum(found.estimate.before.values())


def test_the_verb_writes_npz_bvh_and_what_changed(motions, tmp_path, capsys):
    _, noisy = motions
    write_npz(tmp_path / "noisy.npz", noisy)
    np.save(tmp_path / "short.npy", np.zeros((3, 22, 3), np.float32))
    out = tmp_path / "out"
    assert main(["motion", "reestimate", str(tmp_path), "--output", str(out), "--steps", "10"]) == 0
    said = capsys.readouterr().out
    content = json.loads((out / "metrics.json").read_text())
    row, failed = content["motions"]
    assert "one point" in failed["reason"]
    assert 10 < row["moved_mm"] < 80
    assert row["after"]["scores"]["jerk"]["value"] < 0.1 * row["before"]["scores"]["jerk"]["value"]
    assert row["after"]["scores"]["bone_change"]["value"] < 0.1
    assert "Euler-Lagrange violation" in said
    assert "<svg" in (out / "report.html").read_text()
    bvh, npz = read_motion(out / "noisy.bvh"), read_motion(out / "noisy.npz")
    same = [bvh.names.index(name) for name in npz.names]  # depth first in the one, breadth first in the other
    assert float((bvh.positions[:, same] - npz.positions).norm(dim=-1).max()) < 1e-3
