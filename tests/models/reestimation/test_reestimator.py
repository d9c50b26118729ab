"""Lifting and the whole learned re-estimator: forms, windows, files, and that small ones learn."""

from __future__ import annotations

import pytest
import torch

from visviva.errors import InputError
from visviva.models.reestimation.dynamics import PhysNet
from visviva.models.reestimation.fusion import Fusion
from visviva.models.reestimation.kalman import smoothed
from visviva.models.reestimation.lifting import RADIUS, Lifter, normalised
from visviva.models.reestimation.reestimator import GATE, JERK, NOISE, Pool, Reestimator
from visviva.models.reestimation.windows import cut, joined


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    lifter = Lifter(frames=8, width=8, depth=2, heads=2, guess=16)
    return Reestimator(lifter, PhysNet(frames=8, width=16, depth=1), Pool(torch.randn(2, 8, 17, 3), torch.randn(2, 8, 17, 3)))


def test_windows_cover_a_clip_and_join_to_it():
    for frames in (8, 9, 15, 30, 61):
        clip = torch.randn(frames, 3, 2)
        windows = cut(clip, 8)
        assert windows.shape[1:] == (8, 3, 2)
        assert torch.allclose(joined(windows, frames), clip, atol=1e-6)
    with pytest.raises(InputError, match="windows of 8"):
        cut(torch.zeros(7, 1), 8)


def test_the_2d_window_is_about_the_hip_and_of_one_size():
    plane = torch.randn(4, 8, 17, 2)
    found = normalised(3.0 * plane + 5.0, torch.ones(4, 8, 17))
    assert torch.allclose(found, normalised(plane, torch.ones(4, 8, 17)), atol=1e-5)
    assert float(found[:, :, 0].abs().max()) == 0
    size = found[..., [0, 2]].square().sum(-1).mean(-1).sqrt().quantile(0.5, dim=-1)
    assert torch.allclose(size, torch.full((4,), RADIUS), atol=1e-3)


def test_the_prompt_and_the_neighbours_in_time_matter(model):
    query = torch.randn(1, 8, 17, 3)
    one, other = (model.lifter(query, model.pool.images[k : k + 1], model.pool.poses[k : k + 1]) for k in (0, 1))
    assert float((one - other).abs().max()) > 1e-6
    moved = query.clone()
    moved[:, -1] += 1.0
    far = model.lifter(moved, model.pool.images[:1], model.pool.poses[:1])
    assert float((far - one)[:, 0].abs().max()) > 1e-6  # seven frames away


def test_fusion_stays_between_the_two():
    fused = Fusion(6, 8)(torch.zeros(50, 6), torch.ones(50, 6))
    assert bool((fused >= 0).all() & (fused <= 1).all())
    assert float(fused.mean()) == pytest.approx(0.5, abs=0.1)


def test_a_file_keeps_what_it_was_given(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    again = Reestimator.load(tmp_path / "m.safetensors")
    plane, sure, joints = torch.randn(20, 17, 2), torch.rand(20, 17), torch.randn(20, 17, 3)
    assert torch.allclose(again.lift(plane, sure), model.lift(plane, sure), atol=5e-3)
    assert torch.allclose(again(joints), model(joints), atol=5e-3)
    assert (again.lifter.heads, again.fps) == (2, 20.0)
    (tmp_path / "other.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a safetensors file"):
        Reestimator.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no such file"):
        Reestimator.load(tmp_path / "none")
    with pytest.raises(InputError, match="prompt 2"):
        model.lift(plane, sure, prompt=2)


def test_lifted_poses_are_calmed_by_the_smoother_of_their_noise(model):
    rng = torch.Generator().manual_seed(3)
    walk = torch.randn(1, 17, 3, generator=rng) + 0.02 * torch.arange(40)[:, None, None]
    lifted = walk + 0.02 * torch.randn(40, 17, 3, generator=rng)
    calm = model.calmed(lifted)
    assert torch.equal(calm, smoothed(lifted, model.fps, NOISE, JERK, gate=GATE))
    assert float((calm - walk).square().mean()) < float((lifted - walk).square().mean())
