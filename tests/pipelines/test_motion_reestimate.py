"""``visviva motion reestimate``: errors against a reference, files of one name, what fails."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_motion_verb import walker

from visviva.cli import main
from visviva.data.motions.arrays import write_npz
from visviva.data.motions.motion import HumanMotion
from visviva.eval.motion.changes import Change
from visviva.eval.motion.measure import REST_POSE, against, measure
from visviva.models.reestimation.joints import NAMES, PARENTS, h36m
from visviva.pipelines.motion import reestimate as verb
from visviva.pipelines.motion.reestimate import comparable


@pytest.fixture(scope="module")
def motions():
    """A walker, and the same with 3 cm of noise and no rotations."""
    true = walker(frames=24)
    shaken = true.positions + 0.03 * torch.randn(true.positions.shape, generator=torch.Generator().manual_seed(0))
    return true, true.noted(positions=shaken, rotations=None, rest=None)


def test_errors_against_a_reference_before_and_after(motions, tmp_path, capsys):
    true, noisy = motions
    write_npz(tmp_path / "true" / "walk.npz", true)
    write_npz(tmp_path / "in" / "walk.npz", noisy)
    np.save(tmp_path / "in" / "other.npy", noisy.positions.numpy())
    out = tmp_path / "out"
    args = ["motion", "reestimate", str(tmp_path / "in"), "--reference", str(tmp_path / "true"), "--steps", "10"]
    assert main([*args, "--output", str(out)]) == 0
    said = capsys.readouterr().out
    failed, row = json.loads((out / "metrics.json").read_text())["motions"]
    assert "has no motion of the name 'other'" in failed["reason"]
    before, after = (row[side]["scores"]["mpjpe"]["value"] for side in ("before", "after"))
    assert before == pytest.approx(float(against(noisy, true)["mpjpe"].value), rel=1e-5)
    assert after < 0.7 * before
    assert f"{before:.3g}" in next(line for line in said.splitlines() if line.startswith("mpjpe [mm]"))
    assert said.splitlines()[-1] == "1 of 2 files could not be re-estimated; the reasons are above"
    assert "<td>mpjpe [mm]</td>" in (out / "report.html").read_text()


def test_what_dynamics_still_does_not_allow_is_said(motions):
    """A walker in mid-air needs his weight of force before and after; half of it, or none, is no verdict."""
    low = measure(motions[0])

    def left(value):
        return replace(low, scores=low.scores | {"el_violation": replace(low.scores["el_violation"], value=value)})

    said = Change(left(0.9), left(0.8), "").verdict
    assert "0.80 of 0.90 body weights are left" in said
    assert "--noise" in said
    assert not Change(left(0.9), left(0.4), "").verdict
    assert not Change(left(0.1), left(0.1), "").verdict
    assert not Change(left(math.nan), left(math.nan), "").verdict


def test_a_missing_reference_is_refused(motions, tmp_path, capsys):
    write_npz(tmp_path / "walk.npz", motions[1])
    args = ["motion", "reestimate", str(tmp_path / "walk.npz"), "--reference", str(tmp_path / "none.npz")]
    assert main([*args, "--output", str(tmp_path / "out")]) == 2
    assert "none.npz: no such file" in capsys.readouterr().err


def test_a_reference_of_another_rate_is_refused_before_the_work(motions, tmp_path, capsys, monkeypatch):
    worked = []
    monkeypatch.setattr(verb, "one", lambda *given: worked.append(given))
    write_npz(tmp_path / "walk.npz", motions[1])
    write_npz(tmp_path / "slow.npz", motions[0].noted(fps=10.0))
    args = ["motion", "reestimate", str(tmp_path / "walk.npz"), "--reference", str(tmp_path / "slow.npz")]
    assert main([*args, "--output", str(tmp_path / "out")]) == 2
    assert "20 frames/s against 10 of the reference; resample one of them" in capsys.readouterr().err
    assert not worked


def test_inputs_and_references_are_not_written_over(motions, tmp_path, capsys):
    write_npz(tmp_path / "walk.npz", motions[1])
    np.save(tmp_path / "clip.npy", motions[1].positions.numpy())
    write_npz(tmp_path / "clip.npz", motions[0])
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for given in (["walk.npz"], ["clip.npy", "--reference", str(tmp_path / "clip.npz")]):
        args = ["motion", "reestimate", str(tmp_path / given[0]), *given[1:], "--output", str(tmp_path)]
        assert main(args) == 2
        assert "is an input or a reference, and would be written over" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_a_reference_is_compared_in_the_frames_joints_and_rate_of_what_is_re_estimated(motions):
    true, _ = motions
    assert len(comparable(true, true.cut(1, 24).noted(REST_POSE))) == 23
    seventeen = HumanMotion(h36m(true.positions, "smpl"), NAMES, PARENTS, true.fps)
    found = comparable(true, seventeen)
    assert found.names == NAMES
    assert against(seventeen, found)["mpjpe"].value < 1e-3
    assert comparable(true, true.noted(fps=10.0)).fps == 20.0
    assert comparable(true, true.noted(fps=10.0), flat=True).fps == 10.0


def test_files_of_one_name_do_not_overwrite_each_other(motions, tmp_path):
    for folder, frames in (("a", 20), ("a-walk", 24)):
        write_npz(tmp_path / folder / "walk.npz", motions[1].cut(0, frames))
    np.save(tmp_path / "a" / "walk.npy", motions[1].cut(0, 22).positions.numpy())
    out = tmp_path / "out"
    args = ["motion", "reestimate", str(tmp_path / "a" / "walk.npz"), str(tmp_path / "a" / "walk.npy"), "--steps", "2"]
    assert main([*args, "--shown", "0", "--fps", "20", "--output", str(out)]) == 0
    assert {p.name for p in out.glob("*.npz")} == {"walk-npz.npz", "walk-npy.npz"}
