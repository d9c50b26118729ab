"""``visviva motion render``: a video of each motion, of its skeleton or a body model; what fails is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_motion_verb import walker

from visviva.cli import main
from visviva.configs.motion import MotionRecipe
from visviva.data.bodies import write_test_model
from visviva.data.motions.arrays import write_npz
from visviva.data.motions.bvh import write_bvh
from visviva.data.video import read_video
from visviva.pipelines.motion.render import pictures, shortened


def test_the_verb_writes_a_video_of_each_motion_and_says_what_failed(tmp_path, capsys):
    motion = walker(frames=12)
    write_npz(tmp_path / "in" / "walk.npz", motion)
    np.save(tmp_path / "in" / "points.npy", np.zeros((5, 22, 3)))
    out = tmp_path / "out"
    assert main(["motion", "render", str(tmp_path / "in"), "--output", str(out), "--camera", "side", "--size", "64"]) == 0
    said = capsys.readouterr().out
    assert "12 frames, 20 a second" in said
    assert "not drawn" in said
    assert "one point" in said
    assert "1 of 2 files could not be drawn" in said.splitlines()[-1]
    assert [p.name for p in out.iterdir()] == ["walk.mp4"]
    video = read_video(out / "walk.mp4")
    assert tuple(video.frames.shape) == (12, 3, 64, 64)
    assert video.fps == pytest.approx(20.0)
    change = (video.frames[1:].float() - video.frames[:-1].float()).abs().mean((1, 2, 3))
    assert float(change.min()) > 0.2  # it moves


def test_files_of_one_name_get_a_video_each(tmp_path):
    write_npz(tmp_path / "in" / "walk.npz", walker(frames=4))
    write_bvh(tmp_path / "in" / "walk.bvh", walker(frames=6))
    out = tmp_path / "out"
    assert main(["motion", "render", str(tmp_path / "in"), "--output", str(out), "--size", "32"]) == 0
    assert {p.name: len(read_video(p).frames) for p in out.iterdir()} == {"walk-npz.mp4": 4, "walk-bvh.mp4": 6}


def test_the_body_model_is_drawn_where_it_is_given(tmp_path):
    write_test_model(tmp_path / "smpl.npz")
    write_npz(tmp_path / "walk.npz", walker(frames=4))
    args = ["motion", "render", str(tmp_path / "walk.npz"), "--size", "32", "--output", str(tmp_path / "out")]
    assert main([*args, "--body", str(tmp_path / "smpl.npz")]) == 0
    grey = read_video(tmp_path / "out" / "walk.mp4").frames.float()
    assert main(args) == 0
    coloured = read_video(tmp_path / "out" / "walk.mp4").frames.float()
    spread = [float((x.amax(1) - x.amin(1)).quantile(0.99)) for x in (grey, coloured)]
    assert spread[0] < 0.5 * spread[1]


def test_fast_and_long_motions_are_shortened_and_that_is_said():
    motion = walker(frames=700)
    fast = motion.noted(fps=60.0)
    shown, notes = shortened(fast)
    assert (shown.fps, len(shown)) == (30.0, 350)
    assert notes == ["resampled from 60 a second"]
    shown, notes = shortened(motion.noted(fps=1 / 0.033333))  # as BVH files have it
    assert (shown.fps, len(shown), notes) == (30.0, 700, [])
    shown, notes = shortened(motion.noted(fps=10.0))
    assert len(shown) == 600
    assert notes == ["the first 60 s of 70.0 s"]


def test_a_floor_that_is_given_is_where_the_picture_has_it():
    motion, recipe = walker(frames=2), MotionRecipe(action="render", size=32)
    high, low = (pictures(motion, recipe.model_copy(update={"floor": floor})) for floor in (0.0, -1.0))
    assert high.dtype == torch.uint8
    assert float((high.float() - low.float()).abs().mean()) > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["none.bvh"], "no such file"),
        (["walk.npz", "--body", "none.npz"], "no such file. The models of the SMPL family are licensed"),
        (["walk.npz", "--camera", "behind"], "camera"),
        (["walk.npz", "--size", "33"], "multiple of 2"),
        (["walk.npz", "--floor", "9"], "in or under the floor"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "walk.npz", walker(frames=2))
    assert main(["motion", "render", *options, "--output", "out"]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert "Traceback" not in complaint
