"""Masks followed from the first frame, and found without any, against the true masks of rendered and simulated clips."""

import pytest
import torch

from visviva.errors import InputError
from visviva.eval.eyes import photographed
from visviva.models.probes import LucasKanade, MotionMasks, TrackedMasks, track_masks
from visviva.models.probes.displacements import Displacements
from visviva.models.probes.masks import median_over_time
from visviva.physics.kinematics import centroids
from visviva.physics.motions import draw
from visviva.physics.sprites import random_sprites
from visviva.physics.verify import iou
from visviva.physics.violations import VIOLATIONS


def blurred(frames, noise):
    """What a small autoencoder does to a clip: a soft picture with a little noise; the first frame is the condition."""
    taps = torch.tensor([0.25, 0.5, 0.25])
    padded = torch.nn.functional.pad(frames.flatten(0, 1), (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    soft = torch.nn.functional.conv2d(padded, (taps[:, None] * taps)[None, None]).view_as(frames)
    soft = soft + noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([frames[:, :1], soft[:, 1:]], dim=1).clamp(0, 1)


CASES = {
    "textured": ({"seed": 1}, 0.0),
    "plain": ({"seed": 2, "textured": False}, 0.0),
    "two objects": ({"seed": 3, "objects": 2}, 0.0),
    "small": ({"seed": 4, "radius": (3.5, 5.0)}, 0.0),
    "large": ({"seed": 4, "radius": (9.0, 11.0)}, 0.0),
    "soft and noisy": ({"seed": 1}, 0.015),
}


@pytest.mark.parametrize("case", CASES)
def test_objects_are_followed_through_rendered_clips(case):
    options, noise = CASES[case]
    drawn = random_sprites(8, **options).render()
    masks = track_masks(blurred(drawn.frames, noise) if noise else drawn.frames, drawn.masks[:, 0])
    overlap = iou(masks > 0.5, drawn.masks > 0.5)[:, 1:]
    assert float(overlap.mean()) > 0.87
    assert float(overlap.mean((1, 2)).min()) > 0.8
    assert float((centroids(masks)[0] - centroids(drawn.masks)[0]).norm(dim=-1).max()) < 1.0
    assert float(masks.sum(2).max()) <= 1.00001


@pytest.mark.parametrize("name", ["jitter", "dead_stop", "teleport", "freeze", "speed_up", "shrink"])
def test_masks_follow_what_the_clip_shows_also_where_it_is_wrong(name):
    broken = VIOLATIONS[name](random_sprites(8, seed=1)).render()
    masks = track_masks(broken.frames, broken.masks[:, 0])
    seen = broken.masks.sum((-2, -1)) > 40
    assert float(iou(masks > 0.5, broken.masks > 0.5)[seen].mean()) > 0.85


def test_lost_objects_have_empty_masks():
    scene = random_sprites(8, seed=1)
    first = scene.render().masks[:, 0]
    for name, left in (("vanish", slice(9, None)), ("empty", slice(1, None))):
        masks = track_masks(VIOLATIONS[name](scene).render().frames, first)
        assert float((masks[:, left] > 0.5).float().sum((-2, -1)).mean()) < 0.08 * float(first.sum((-2, -1)).mean())
        assert float((masks[:, left] > 0.5).float().sum((-2, -1)).median()) == 0


def test_gradient_reaches_the_frames_and_points_at_the_object():
    drawn = random_sprites(2, seed=1, frames=5).render()
    frames = drawn.frames.clone().requires_grad_()
    centroids(track_masks(frames, drawn.masks[:, 0]))[0][:, -1].sum().backward()
    assert torch.isfinite(frames.grad).all()
    strength = frames.grad[:, -1].abs().sum(1)
    near = torch.nn.functional.max_pool2d(drawn.masks[:, -1], 9, 1, 4)[:, 0] > 0.5
    assert float(strength[near].sum()) > 0.8 * float(strength.sum())


def test_blank_clips_and_empty_first_masks_do_not_break_anything():
    frames = torch.full((2, 4, 3, 24, 24), 0.5)
    assert float(track_masks(frames, torch.zeros(2, 1, 24, 24)).amax()) < 0.5
    assert torch.isfinite(track_masks(frames, torch.ones(2, 1, 24, 24))).all()
    assert torch.isfinite(track_masks(torch.rand(2, 4, 3, 24, 24), torch.zeros(2, 2, 24, 24))).all()


def test_the_source_takes_the_first_of_the_given_masks():
    drawn = random_sprites(2, seed=1, frames=5).render()
    whole, first = TrackedMasks()(drawn.frames, drawn.masks), TrackedMasks()(drawn.frames, drawn.masks[:, :1])
    assert torch.equal(whole, first)
    with pytest.raises(InputError, match="needs their masks in the first frame"):
        TrackedMasks()(drawn.frames, None)


@pytest.mark.parametrize("objects", [1, 2])
def test_moving_objects_are_found_without_any_masks(objects):
    scene = random_sprites(8, seed=6, objects=objects)
    drawn = scene.render()
    flow = LucasKanade()(drawn.frames, torch.full((8,), 30.0)).flow
    masks = MotionMasks(objects=objects)(drawn.frames, None, flow)
    assert masks.shape == drawn.masks.shape
    travelled = (scene.trajectory[:, -1] - scene.trajectory[:, 0]).norm(dim=-1).amin(1) > 20
    assert int(travelled.sum()) >= 3
    union = iou(masks.amax(2) > 0.5, drawn.masks.amax(2) > 0.5).mean(1)
    assert float(union[travelled].mean()) > 0.75
    assert float(MotionMasks()(drawn.frames[:, :1].expand(-1, 4, -1, -1, -1), None).max()) < 0.5
    with pytest.raises(InputError, match="at least 3 frames"):
        MotionMasks()(drawn.frames[:, :2], None)


@pytest.mark.slow
def test_objects_are_followed_through_simulated_clips():
    """The standard the metrics stand on: mean intersection over union of at least 0.8 with the simulator's own masks."""
    from visviva.data.scenes import simulate

    for primitive in ("parabolic_throw", "ramp_up"):
        clips = simulate(primitive, n=4, seed=3)
        for clip in clips:
            masks = track_masks(clip.frames[None], clip.masks[None, 0].float())
            overlap = iou(masks[0] > 0.5, clip.masks)[1:]
            assert float(overlap.mean()) > 0.8


def reached(scene, name=None):
    """Mean overlap of followed with true masks in the last frame; the first frame's are known."""
    broken = (VIOLATIONS[name](scene) if name else scene).render()
    masks = track_masks(photographed(broken.frames), scene.render().masks[:, 0])
    return iou(masks > 0.5, broken.masks > 0.5)[:, -1].mean(), masks, broken


def test_masks_leave_the_outline_of_the_first_frame_where_an_object_turns_or_grows():
    turned, masks, _ = reached(draw("spins", 6, seed=3, size=96))
    assert float(turned) > 0.85
    grown, masks, true = reached(random_sprites(8, seed=1, height=96, width=96, radius=(8.0, 11.0)), "size_drift")
    assert float(grown) > 0.9
    growth = masks[:, -1].sum((-2, -1)) / masks[:, 0].sum((-2, -1))
    assert torch.allclose(growth, true.masks[:, -1].sum((-2, -1)) / true.masks[:, 0].sum((-2, -1)), rtol=0.15)


def test_a_ball_that_bounces_hard_is_not_lost():
    followed, masks, true = reached(draw("bounces", 12, seed=910, size=96), "energy_gain")
    assert float(followed) > 0.85
    assert float((centroids(masks)[0] - centroids(true.masks)[0]).norm(dim=-1).max()) < 2.0


def test_the_median_over_time_is_the_lower_one_of_the_frames_that_are_free():
    generator = torch.Generator().manual_seed(0)
    for steps in (1, 2, 5, 17):
        still = torch.rand(2, steps, 3, 6, 7, generator=generator)
        free = torch.rand(2, steps, 1, 6, 7, generator=generator) > 0.4
        plain = torch.where(free, still, float("nan")).nanmedian(1, keepdim=True).values.nan_to_num()
        assert torch.equal(median_over_time(still, free), plain)


def test_displacements_are_found_to_a_tenth_of_a_pixel_also_out_of_the_image():
    scene = random_sprites(4, seed=1, frames=9)
    path = scene.trajectory[:, :1] + torch.arange(9)[None, :, None, None] * torch.tensor([4.3, -1.7])
    drawn = scene.with_(trajectory=path).render()
    first = drawn.masks[:, 0]
    found = Displacements(drawn.frames, first).follow(4 * drawn.masks - 2, reach=4.0)
    inside = (drawn.masks.sum((-2, -1)) > 0.6 * first.sum((-2, -1))[:, None])[..., 0]
    off = (found - (path - path[:, :1]))[..., 0, :].norm(dim=-1)
    assert int(inside.sum()) > 20
    assert float(off[inside].median()) < 0.25
    assert float(off[inside].max()) < 1.0
