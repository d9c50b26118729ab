"""The compositor draws what it says, and every violation breaks what its name says."""

import pytest
import torch

from visviva.errors import InputError
from visviva.physics.kinematics import acceleration_fit, centroids
from visviva.physics.motions import draw
from visviva.physics.sprites import cut, random_sprites
from visviva.physics.violations import VIOLATIONS


@pytest.fixture(scope="module")
def scene():
    return random_sprites(6, seed=0, objects=2)


def test_masks_move_with_the_trajectory_and_the_flow_says_how_far(scene):
    drawn = scene.render()
    assert float((centroids(drawn.masks)[0] - scene.trajectory).abs().max()) < 0.1
    inside = drawn.masks[:, :-1, 0] > 0.999
    step = (scene.trajectory[:, 1:, 0] - scene.trajectory[:, :-1, 0])[..., None, None].expand(-1, -1, -1, 64, 64)
    assert torch.allclose(drawn.flow.movedim(2, -1)[inside], step.movedim(2, -1)[inside], rtol=2e-3)
    assert float(drawn.flow[:, :, :][(drawn.masks[:, :-1].sum(2) == 0)[:, :, None].expand_as(drawn.flow)].abs().max()) == 0


def test_random_scenes_accelerate_uniformly_stay_in_view_and_do_not_collide(scene):
    path = scene.trajectory.transpose(1, 2).flatten(0, 1).double()
    times = torch.arange(17.0).double().expand(path.shape[0], -1)
    assert float(acceleration_fit(path, times).residual.max()) < 1e-4
    assert float(path.min()) > 0
    assert float(path.max()) < 63
    assert float((scene.trajectory[:, :, 0] - scene.trajectory[:, :, 1]).norm(dim=-1).min()) > 16
    assert torch.equal(random_sprites(6, seed=0, objects=2).trajectory, scene.trajectory)


def test_known_contacts_do_not_excuse_a_violation(scene):
    contact = torch.zeros(6, 17, dtype=torch.bool)
    contact[1, 8:10] = contact[2, :6] = contact[3, 2:4] = contact[3, 15:] = True
    contact[4] = True  # nowhere to break: no error, and the first frame stays
    middles = [8, 4, 11, 9, 1, 8]  # of frames 0-16, 0-7, 6-16, 4-14, none, 0-16
    known = scene.with_(contact=contact)
    moves = VIOLATIONS["dead_stop"](known).trajectory.diff(dim=1).abs().sum((2, 3)) > 0
    assert [int(moving.sum()) for moving in moves] == middles
    for name in ("float", "teleport"):
        same = (VIOLATIONS[name](known).trajectory - scene.trajectory).abs().sum((2, 3)) < 1e-3
        assert [int(row.long().cumprod(0).sum()) for row in same] == [m + (name == "float") for m in middles]
    assert torch.equal(VIOLATIONS["dead_stop"](scene.with_(contact=contact & False)).trajectory,
                       VIOLATIONS["dead_stop"](scene).trajectory)  # fmt: skip


def test_rendering_is_differentiable_with_respect_to_the_trajectory():
    scene = random_sprites(1, seed=2, frames=2, height=24, width=24, radius=(4.0, 5.0))
    path = scene.trajectory.double().requires_grad_()
    doubles = {name: getattr(scene, name).double() for name in ("background", "texture", "alpha", "scale", "opacity", "noise")}
    weight = torch.linspace(-1, 1, 24, dtype=torch.float64)

    def brightness(trajectory):
        drawn = scene.with_(trajectory=trajectory, **doubles).render()
        return (drawn.frames * weight).sum() + (drawn.masks * weight).sum()

    assert torch.autograd.gradcheck(brightness, (path,), eps=1e-5, atol=1e-4)


def test_a_clip_taken_apart_and_put_together_is_the_clip(scene):
    drawn = scene.render()
    again = cut(drawn.frames, drawn.masks).render()
    assert float((again.frames - drawn.frames).abs().mean()) < 5e-3
    assert float((again.masks - drawn.masks).abs().mean()) < 5e-3
    with pytest.raises(InputError, match="masks of the clip are empty"):
        cut(drawn.frames, torch.zeros_like(drawn.masks))


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, v in VIOLATIONS.items() for k in sorted(v.kinds or {"moves"})])
def test_a_violation_changes_the_clip_keeps_its_first_frame_and_is_reproducible(name, kind):
    scene = draw(kind, 3, seed=1, size=48, objects=2)  # of the pushes one has both bodies pushed, two have a bystander
    violated = VIOLATIONS[name](scene)
    true, broken = scene.render(), violated.render()
    assert broken.frames.shape == true.frames.shape
    assert float((broken.frames[:, 1:] - true.frames[:, 1:]).abs().mean()) > 1e-4
    if name not in ("noise", "jitter", "reversed_time"):
        assert torch.allclose(broken.frames[:, 0], true.frames[:, 0], atol=1e-5)
    assert torch.equal(VIOLATIONS[name](scene).render().frames, broken.frames)


def test_a_violation_refuses_scenes_that_lack_what_it_changes(scene):
    with pytest.raises(InputError, match="cannot be violated by 'wrong_g'; give scenes of bounces or falls"):
        VIOLATIONS["wrong_g"](scene)
    with pytest.raises(InputError, match="with 2 or more"):
        VIOLATIONS["swapped_identity"](random_sprites(1, seed=0))


def test_violations_break_what_their_names_say(scene):
    able = {name: make for name, make in VIOLATIONS.items() if make.applies(scene)}
    last = {name: make(scene).render().masks[:, -1].sum((-2, -1)) for name, make in able.items()}
    first = scene.render().masks[:, 0].sum((-2, -1))
    for gone in ("vanish", "empty", "noise"):
        assert float(last[gone].max()) == 0
    assert float((last["shrink"] / first).max()) < 0.35
    assert float((last["fade"] / first).max()) < 0.3
    step = {name: make(scene).trajectory.diff(dim=1) for name, make in able.items()}
    true = scene.trajectory.diff(dim=1)
    assert float(step["freeze"].abs().max()) == 0
    assert float(step["dead_stop"][:, 8:].abs().max()) == 0
    assert torch.equal(step["dead_stop"][:, :8], true[:, :8])
    assert float(step["float"][:, 9:].diff(dim=1).abs().max()) < 1e-4
    assert torch.allclose(step["speed_up"].diff(dim=1), 2.25 * true.diff(dim=1), atol=1e-3)
    assert float((step["teleport"] - true)[:, 7].norm(dim=-1).min()) >= 2.99
    assert float((step["teleport"] - true)[:, 8:].abs().max()) < 1e-4
