"""``visviva pretrain --config pretrain-reestimation`` at a tiny size, its detections, and 2D poses through the verb."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
import torch

from visviva.cli import main
from visviva.configs.motion import MotionRecipe
from visviva.configs.pretrain import PretrainRecipe, ReestimationStage
from visviva.data.motions import HumanMotion
from visviva.data.motions.arrays import write_npz
from visviva.errors import InputError
from visviva.models.reestimation.joints import MIRROR, NAMES, PARENTS
from visviva.models.reestimation.reestimator import Reestimator
from visviva.pipelines import motion
from visviva.pipelines.motion.fuse import fused, reestimated
from visviva.pipelines.pretrain import run
from visviva.pipelines.pretrain.detections import Detector, detected, filmed
from visviva.pipelines.pretrain.reestimation import clips, mixed, picked, recordings
from visviva.pipelines.pretrain.variations import FEET, LENGTHS, varied

SMALL = ReestimationStage(
    clips=15, guess_steps=3, guess_batch=4, lifter_steps=2, batch_size=2, width=8, lifted=2, physics_steps=3, physics_batch=2,
    physics_width=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("reestimation")
    return run(PretrainRecipe(model="reestimation", out=str(out), reestimation=SMALL, validate_every=2, device="cpu"))


def test_one_command_writes_weights_that_load_a_card_and_checksums(model):
    names = {"model.safetensors", "numbers.json", "README.md", "recipe.json", "SHA256SUMS"}
    assert {p.name for p in model.iterdir()} == names
    for line in (model / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((model / name).read_bytes()).hexdigest() == digest
    again = Reestimator.load(model / "model.safetensors")
    assert again.lifter.embed.out_features == 8
    assert json.loads((model / "numbers.json").read_text())["numbers"]["lifted_mpjpe"] > 0
    assert "visviva pretrain --config pretrain-reestimation" in (model / "README.md").read_text()
    assert len((model.parent / "guess.jsonl").read_text().splitlines()) == 1


def test_detections_err_as_they_say():
    points = torch.zeros(64, 60, 17, 2)
    plain = Detector(outliers=0.0, lost=0.0)
    noisy, sure = detected(points, torch.full((64,), 2.0), 20.0, torch.Generator().manual_seed(0), plain)
    assert float(noisy[:, :, 0].square().mean().sqrt()) == pytest.approx(2.0 * (2e-4 * np.exp(0.5)) ** 0.5, rel=0.25)
    hip = noisy[:, :, 0]
    lasting = (hip[:, 1:] * hip[:, :-1]).mean() / hip.square().mean()
    assert 0.3 < float(lasting) < 0.6  # half of the variance lasts, by exp(-0.1) from frame to frame
    assert float(sure.min()) >= 0.6
    _, sure = detected(points, torch.ones(64), 20.0, torch.Generator().manual_seed(0), Detector(lost=0.1))
    assert float((sure < 0.4).float().mean()) == pytest.approx(0.1, rel=0.2)


def bones(joints):
    return (joints[:, :, 1:] - joints[:, :, list(PARENTS[1:])]).norm(dim=-1)


def test_varied_clips_are_bodies_with_other_bones_on_the_same_floor():
    before = clips(30, seed=3)
    after = varied(before, 20.0, torch.Generator().manual_seed(0))
    ratio = bones(after) / bones(before)
    assert float((ratio - ratio[:, :1]).abs().max()) < 1e-3  # one length for the whole clip
    other = [MIRROR[j] - 1 for j in range(1, 17)]
    assert torch.allclose(ratio, ratio[:, :, other], atol=1e-3)  # the same on both sides
    assert 0.5 * LENGTHS < float(ratio[:, 0].log().std()) < 2 * LENGTHS
    floor = [x[:, :, list(FEET), 2].amin((1, 2)) for x in (before, after)]
    assert torch.allclose(*floor, atol=1e-5)
    arms = (after - before)[:, :, 12:14].norm(dim=-1).mean()
    legs = (after - before)[:, :, 2].norm(dim=-1).mean()
    assert float(arms) > 1.5 * float(legs)  # legs carry the body and change less


def test_a_share_of_the_clips_is_varied_and_none_if_none_is_asked():
    data = clips(15, seed=3)
    plain, half = (picked(data, 40, torch.Generator().manual_seed(1), share) for share in (0.0, 0.5))
    changed = (plain - half).abs().amax((1, 2, 3)) > 1e-3
    assert 10 < int(changed.sum()) < 30


@pytest.fixture
def recorded(tmp_path):
    """A folder of two simulated motions as if they were recorded: 3 s at 20 frames/s and 5 s at 40, and one of a second."""
    folder = tmp_path / "recorded"
    data = clips(15, seed=5)
    slow = torch.nn.functional.interpolate(data[1].flatten(1).T[None], scale_factor=10 / 3, mode="linear")[0].T.reshape(
        200, 17, 3
    )
    for name, joints, fps in (("a", data[0], 20.0), ("b", slow, 40.0), ("c", data[2, :20], 20.0)):
        write_npz(folder / f"{name}.npz", HumanMotion(joints.contiguous(), NAMES, PARENTS, fps))
    return folder, data


def test_recordings_are_cut_into_clips_of_three_seconds_every_second(recorded):
    folder, data = recorded
    found = recordings(folder)
    assert found.shape == (4, 60, 17, 3), "one of three seconds, three of five, none of one"
    assert torch.allclose(found[0], data[0], atol=1e-4)
    assert torch.allclose(found[1, 20:], found[2, :40], atol=1e-5)
    simulated = data[:12]
    for share, count in ((0.5, 12), (0.25, 4), (0.75, 36)):
        both = mixed(simulated, found, share)
        assert len(both) == 12 + count
        assert torch.equal(both[:12], simulated)


def test_recordings_that_are_none_are_refused(recorded, tmp_path):
    folder, _ = recorded
    with pytest.raises(InputError, match="no folder of recorded motions"):
        recordings(tmp_path / "none")
    for name in ("a", "b"):
        (folder / f"{name}.npz").unlink()
    with pytest.raises(InputError, match="no motion of 3 seconds in it"):
        recordings(folder)


def test_weights_trained_on_recordings_say_so(recorded, tmp_path):
    stage = SMALL.model_copy(update={"recordings": str(recorded[0]), "credit": "Drawn for this test."})
    recipe = PretrainRecipe(model="reestimation", out=str(tmp_path / "out"), reestimation=stage, validate_every=2, device="cpu")
    folder = run(recipe)
    told = json.loads((folder / "numbers.json").read_text())
    assert told["recorded_clips"] == 4
    assert len(told["fingerprint"]) == 16
    card = (folder / "README.md").read_text()
    assert "Clips of recorded motions, 4 of them, make 0.5 of what it saw. Drawn for this test." in card
    assert f"--reestimation.recordings {recorded[0]}" in card


def test_a_filmed_body_is_in_the_picture_and_has_its_true_size():
    true = clips(15, 0)
    film = filmed(true, 20.0, torch.Generator().manual_seed(0), Detector(0.0, 0.0, outliers=0.0, lost=0.0))
    assert float(film.joints[..., 1].min()) > 0.5
    assert torch.allclose(film.camera.project(film.joints), film.image, atol=1e-5)
    assert float((film.image[..., 1].abs() < 0.5).float().mean()) > 0.95
    bones = (film.joints[:, :, 2] - film.joints[:, :, 1]).norm(dim=-1)
    assert torch.allclose(bones, (true[:, :, 2] - true[:, :, 1]).norm(dim=-1), atol=1e-4)


@pytest.fixture(scope="module")
def poses(tmp_path_factory):
    """A file of 2D poses of a simulated walk, in pixels."""
    film = filmed(clips(1, 3)[:, :40], 20.0, torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("poses") / "walk.npz"
    points = film.image[0] * 480 + torch.tensor([320.0, 240.0])
    np.savez(path, points=points.numpy(), confidence=film.confidence[0].numpy(), fps=20.0, width=640, height=480)
    return path


@pytest.mark.parametrize("method", ["learned", "analytic", "fused"])
def test_2d_poses_are_lifted_and_re_estimated(model, poses, tmp_path, method):
    options = ["--method", method, "--weights", str(model / "model.safetensors"), "--steps", "2", "--stature", "1.7"]
    assert main(["motion", "reestimate", str(poses), "--output", str(tmp_path), *options]) == 0
    (row,) = json.loads((tmp_path / "metrics.json").read_text())["motions"]
    assert row["before"]["joints"] == row["after"]["joints"] == 17
    assert "lifted from 2D" in row["before"]["notes"][0]
    assert row["moved_mm"] > 0
    assert {p.suffix for p in tmp_path.iterdir()} == {".npz", ".bvh", ".json", ".html"}


def test_fused_poses_are_half_the_smoothed_and_half_the_mean_of_what_dynamics_says(model):
    """Of lines in time, which the smoother leaves as they are."""
    known = Reestimator.load(model / "model.safetensors")
    time = torch.arange(40)[:, None, None]
    calm, one, other = (k * 0.01 * time.expand(-1, 17, 3) for k in (1, 3, 7))
    assert torch.allclose(fused(calm, [one, other], known), 0.03 * time.expand(-1, 17, 3), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "frames", "said"),
    [
        ({"floor": 0.0}, 40, "a floor at 0 m, the lifted person's hip at"),
        ({"method": "fused"}, 30, "1.5 s of poses; the method fused takes 1.6 s or more"),
        ({"method": "analytic"}, 15, "0.75 s of poses; the method analytic takes 0.8 s or more"),
        ({"method": "learned", "noise": 0.1}, 40, "--noise is of the method analytic"),
        ({"points": 100.0}, 40, "all joints of frame 0 are at one point"),
    ],
)
def test_poses_that_cannot_be_re_estimated_are_refused_by_name(model, poses, tmp_path, options, frames, said):
    content = dict(np.load(poses))
    content["points"], content["confidence"] = content["points"][:frames], content["confidence"][:frames]
    options = dict(options)
    content["points"][:3] = options.pop("points", content["points"][:3])
    np.savez(tmp_path / "walk.npz", **content)
    file, weights = str(tmp_path / "walk.npz"), str(model / "model.safetensors")
    with pytest.raises(InputError, match=re.escape(said)):
        motion.run(MotionRecipe(action="reestimate", files=[file], output=str(tmp_path / "out"), weights=weights, **options))


def test_fusing_takes_only_what_was_lifted(model):
    known = Reestimator.load(model / "model.safetensors")
    joints = torch.zeros(40, 17, 3)
    for wrong in (HumanMotion(joints, NAMES, PARENTS, 60.0), HumanMotion(joints, NAMES[::-1], PARENTS, 20.0)):
        with pytest.raises(InputError, match=r"fusing takes Human3\.6M's 17 at 20"):
            reestimated(wrong, known)


def test_what_2d_poses_lack_is_said(model, tmp_path):
    np.save(tmp_path / "points.npy", np.zeros((20, 17, 2), np.float32))
    recipe = MotionRecipe(
        action="reestimate",
        files=[str(tmp_path / "points.npy")],
        output=str(tmp_path),
        weights=str(model / "model.safetensors"),
    )
    with pytest.raises(InputError, match="--picture WIDTH HEIGHT"):
        motion.run(recipe)
    np.save(tmp_path / "joints.npy", np.zeros((20, 22, 3), np.float32))
    with pytest.raises(InputError, match="fused is for 2D poses"):
        motion.run(recipe.model_copy(update={"files": [str(tmp_path / "joints.npy")], "method": "fused"}))
    with pytest.raises(InputError, match="--fps"):
        motion.run(recipe.model_copy(update={"picture": (640.0, 480.0)}))
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="--pose-model"):
        motion.run(recipe.model_copy(update={"files": [str(tmp_path / "film.mp4")]}))
