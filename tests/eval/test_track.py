"""Weight-free tracking on drawn films: sub-pixel positions, camera motion, cuts, refusals, breaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_films import film, parabola, wall

from visviva.eval.breaks import find_breaks, flights, local_residuals
from visviva.eval.camera import camera_motion
from visviva.eval.track import Unmeasurable, reduced, track_object

PATH, TIMES = parabola(30, 30.0, (30, 200), (260, -330), 360)


def follow(frames, times=TIMES):
    return track_object(frames, torch.from_numpy(times))


def error(track, path=PATH):
    """Distance from the truth, less a constant: a shaded ball is placed towards its lit side, the same in every frame."""
    off = (track.positions - path)[track.seen]
    assert np.linalg.norm(np.median(off, axis=0)) < 1
    return np.linalg.norm(off - np.median(off, axis=0), axis=1)


def test_a_thrown_ball_is_placed_to_a_fraction_of_a_pixel():
    track = follow(film(PATH))
    assert track.seen.sum() >= 28
    assert np.median(error(track)) < 0.15
    assert error(track).max() < 0.8
    assert track.camera.verdict == "fixed"
    assert track.sigma < 0.2
    assert np.nanmedian(track.width) == pytest.approx(18, abs=1.5)
    assert np.nanmedian(track.area) == pytest.approx(np.pi * 81, rel=0.15)


def test_motion_blur_neither_moves_nor_widens_the_ball():
    velocity = np.gradient(PATH, axis=0)
    track = follow(film(PATH, blur=velocity * 0.8))
    assert np.median(error(track)) < 0.3
    assert np.nanmedian(track.width) == pytest.approx(18, abs=2.5)


def test_a_handheld_camera_is_compensated():
    sway = np.stack([3 * np.sin(np.arange(30) / 4), 2 * np.cos(np.arange(30) / 5)], axis=1)
    track = follow(film(PATH, camera=sway))
    assert track.camera.verdict == "compensated"
    assert "compensated" in track.camera.sentence
    moved = track.positions - PATH
    moved = moved[track.seen] - np.median(moved[track.seen], axis=0)  # the reference frame is itself shifted
    assert np.abs(moved).max() < 0.7


def test_a_camera_that_jumps_is_refused():
    jump = np.where(np.arange(30)[:, None] < 15, 0.0, [[110.0, 60.0]])
    with pytest.raises(Unmeasurable, match="camera"):
        follow(film(PATH, camera=jump))


def test_a_wall_without_texture_is_taken_as_fixed_and_says_so():
    flat = np.full((240, 320, 3), 120.0, np.float32)
    track = follow(film(PATH, background=flat))
    assert "taken as fixed" in track.camera.sentence
    assert np.median(error(track)) < 0.15


def test_frames_where_the_ball_leaves_are_cut_not_invented():
    path, times = parabola(30, 30.0, (30, 120), (420, 0), 0)
    track = follow(film(path), times)
    gone = path[:, 0] > 320 - 9
    assert not track.seen[gone].any()
    assert track.seen[5:20].all()
    assert any("border" in why for why in track.cut.values())


def test_a_ball_behind_a_pillar_is_cut_there():
    frames = film(PATH)
    pillar = torch.from_numpy(wall(240, 320)).permute(2, 0, 1).to(torch.uint8)[:, :, 150:175]
    frames[..., 150:175] = pillar
    track = follow(frames)
    hidden = (PATH[:, 0] > 154) & (PATH[:, 0] < 171)
    assert not track.seen[hidden].any()
    assert error(track).max() < 2.5


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (film(PATH[:4]), "4 frames"),
        (film(np.full((12, 2), np.nan)), "nothing moves"),
        (film(np.tile([[100.0, 100.0]], (12, 1))), "nothing moves"),
    ],
    ids=["short", "empty", "still"],
)
def test_what_cannot_be_tracked_says_why(frames, words):
    with pytest.raises(Unmeasurable, match=words):
        follow(frames, np.arange(len(frames)) / 30)


def test_small_clips_are_not_enlarged_and_large_ones_are_reduced():
    assert reduced(film(PATH[:2])).shape == (2, 3, 240, 320)
    assert reduced(torch.zeros(2, 3, 1920, 1080, dtype=torch.uint8)).shape == (2, 3, 640, 360)


def test_camera_motion_is_measured_to_a_tenth_of_a_pixel():
    sway = np.stack([np.linspace(-2, 2, 9), np.zeros(9)], axis=1)
    frames = film(np.full((9, 2), np.nan), camera=sway)
    grey = frames.float().mean(1).round().to(torch.uint8).numpy()
    motion = camera_motion(grey)
    assert motion.transforms[:, 0, 2] - motion.transforms[4, 0, 2] == pytest.approx(sway[:, 0] - sway[4, 0], abs=0.1)
    assert np.abs(motion.transforms[:, 1, 2]).max() < 0.3


def smooth(noise=0.2, count=60, seed=0):
    times = np.arange(count) / 60
    path = np.stack([100 * times, 300 * times**2 - 200 * times], axis=1)
    return path + np.random.default_rng(seed).normal(0, noise, path.shape), times


def test_a_smooth_motion_has_no_breaks():
    for seed in range(10):
        path, times = smooth(seed=seed)
        assert find_breaks(path, times, 0.2) == []
    swing = np.stack([200 * np.sin(2 * times), 60 * np.cos(4 * times)], axis=1)
    assert find_breaks(swing, times, 0.2) == []


@pytest.mark.parametrize("kind", ["bounce", "dropped frame", "cut", "frame rate"])
def test_each_break_is_found_where_it_is(kind):
    path, times = smooth(noise=0.05)
    if kind == "bounce":
        path[31:, 1] -= 240 * (times[31:] - times[30])
    elif kind == "dropped frame":
        path = np.delete(path, slice(30, 36), axis=0)
        times = times[: len(path)]
    elif kind == "cut":
        path[30:] += (6, -3)
    else:
        times = np.concatenate([times[:30], times[30] + 0.6 * (times[30:] - times[30])])
    found = find_breaks(path, times, 0.05)
    assert found
    assert abs(found[0].frame - 29) <= 1
    assert found[0].strength > 5
    stretches = flights(path, found)
    assert [abs(int(s[0]) - at) <= 2 for s, at in zip(stretches, (0, 30), strict=True)] == [True, True]


def test_the_local_residual_points_at_a_single_displaced_frame():
    path, _ = smooth(noise=0.05)
    path[20] += (3, 0)
    residual = np.linalg.norm(local_residuals(path), axis=1)
    assert int(np.nanargmax(residual)) == 20
    assert residual[20] == pytest.approx(6, abs=0.5)
