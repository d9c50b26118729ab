"""Contacts found in tracks against simulated bounces and collisions whose instants are known, and paths that have none."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_paths import bouncing, colliding, sliding, swinging, tracks

from visviva.errors import InputError
from visviva.physics.contact import GROUND, OBJECT, WALL, contact_frames, contacts, track_noise
from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks


def batch(items):
    """One batch of tracks of several lengths; frames past a track's end are hidden."""
    frames, longest = [t.frames for t in items], max(t.frames for t in items)

    def joined(name):
        values = [getattr(t, name) for t in items]
        if values[0] is None:
            return None
        return torch.cat([torch.cat([v, v[:, -1:].expand(-1, longest - v.shape[1], *v.shape[2:])], 1) for v in values])

    visible = joined("visible") & (torch.arange(longest) < torch.tensor(frames)[:, None])[..., None]
    return Tracks(joined("positions"), visible, joined("sigma"), joined("area"))


def agreement(found, true):
    """True positives, false positives and false negatives of instants within one frame; ``true``: per clip and object.

    Instants within 4 frames of the ends cannot be seen and count neither way.
    """
    hits = false = missed = 0
    for b, (events, frames) in enumerate(true):
        for n in range(found.instant.shape[2]):
            at = found.instant[b, :, n].nonzero()[:, 0].tolist()
            for event in events:
                near = [f for f in at if abs(f - event) <= 1]
                at = [f for f in at if f not in near[:1]]
                if 3.5 <= event <= frames - 4.5:
                    hits, missed = hits + bool(near), missed + (not near)
            false += len(at)
    return 2 * hits / (2 * hits + false + missed), hits, false, missed


@pytest.mark.parametrize("fps", [24.0, 30.0, 60.0])
@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_bounces_are_found_within_one_frame(fps, noise):
    """Balls dropped from 0.4-1.5 m, real coefficients of restitution (0.5 clay-like ball on wood to 0.9 a hard rubber ball)."""
    rng, items, true = np.random.default_rng(int(fps)), [], []
    for k in range(30):
        height, frames = rng.uniform(0.4, 1.5), int(rng.integers(30, 90))
        scale = rng.uniform(1.2, 2.0) * max(height, 0.8) / rng.choice([64, 128, 256])
        path, hits = bouncing(frames, height, rng.uniform(0.5, 0.9), fps, scale, rng.uniform(-1, 1), least=6)
        items.append(tracks(path, noise, seed=k))
        true.append((hits, len(path)))
    score, hits, false, missed = agreement(contacts(batch(items)), true)
    assert hits > 30
    assert score >= 0.95, (score, hits, false, missed)


@pytest.mark.parametrize("fps", [24.0, 60.0])
@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_collisions_are_found_within_one_frame_and_are_between_objects(fps, noise):
    rng, items, true = np.random.default_rng(3), [], []
    for k in range(40):
        radii, when, slow = rng.uniform(5, 9, 2), rng.uniform(10, 30), 24 / fps
        before = [(slow * rng.uniform(1.5, 4), slow * rng.uniform(-0.5, 0.5)), (-slow * rng.uniform(0, 2), 0.0)]
        path = colliding(40, radii, before, rng.uniform(0.4, 1), when, turn=rng.uniform(0, 2 * np.pi))
        items.append(tracks(path, noise, seed=k, area=np.pi * radii**2))
        true.append(([when], 40))
    found = contacts(batch(items))
    score, hits, false, missed = agreement(found, true)
    assert hits > 60
    assert score >= 0.9, (score, hits, false, missed)
    between = found.kind == OBJECT
    assert float(between[found.instant].double().mean()) >= 0.97
    assert bool((found.partner[between] == 1 - between.nonzero()[:, 2]).all())


def test_the_change_of_velocity_and_the_restitution_are_those_of_the_bounce():
    """A drop of 1 m at 60 fps and 5 mm per pixel reaches 4.43 m/s = 14.76 px/frame; e = 0.75."""
    path, hits = bouncing(60, height=1.0, restitution=0.75, fps=60.0, scale=0.005, across=0.0)
    found = contacts(tracks(path, noise=0.1))
    frame = int(found.instant[0, :, 0].nonzero()[0])
    assert frame + float(found.time[0, frame, 0]) == pytest.approx(hits[0], abs=0.05)
    fall = np.sqrt(2 * 9.81) / 60 / 0.005
    assert float(found.change[0, frame, 0, 1]) == pytest.approx(-1.75 * fall, rel=0.02)
    assert int(found.kind[0, frame, 0]) == GROUND
    sideways = contacts(tracks(path[:, ::-1].copy(), noise=0.1))
    assert int(sideways.kind[0, frame, 0]) == WALL


def switched_off(frames, when):
    """Way of a body whose unit acceleration ends at a time."""
    time = np.arange(frames)
    return np.where(time < when, time**2 / 2, when * time - when**2 / 2)


SMOOTH = {
    "parabola": lambda k: np.stack([2.0 * np.arange(50), 0.05 * np.arange(50) ** 2], 1),
    "fast swing": lambda k: swinging(60, period=14, amplitude=0.2 + 0.1 * k, phase=k),
    "swing": lambda k: swinging(60, period=30, amplitude=0.2 + 0.1 * k, phase=k),
    "slides to rest": lambda k: sliding(50, speed=3.0, deceleration=0.1 + 0.02 * k),
    "gravity switched off": lambda k: switched_off(50, 20)[:, None] * [0.0, 0.2],
    "teleport": lambda k: np.stack([2.0 * np.arange(50) + (5 + k) * (np.arange(50) > 25), 0 * np.arange(50)], 1),
    "nothing moves": lambda k: np.zeros((50, 2)),
    "pure noise": lambda k: 20 * np.random.default_rng(k).standard_normal((50, 2)),
    "shaken": lambda k: 0.7 * np.random.default_rng(k).standard_normal((50, 2)) + 2.0 * np.arange(50)[:, None],
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_what_is_no_contact_is_not_taken_for_one(name, noise):
    found = contacts(batch([tracks(SMOOTH[name](k), noise, seed=k) for k in range(8)]))
    assert int(found.instant.sum()) <= 1, found.instant.nonzero()


def test_a_dead_stop_looks_like_a_landing():
    stopped = np.minimum(np.arange(50), 20.3)[:, None] * [3.0, 0.0]
    found = contacts(tracks(stopped, noise=0.1))
    assert found.instant[0, :, 0].nonzero()[:, 0].tolist() == [20]
    assert found.near[0, :, 0].nonzero()[:, 0].tolist() == [20, 21]


shift = st.floats(-200, 200)


@settings(max_examples=15, deadline=None)
@given(x=shift, y=shift, zoom=st.floats(0.5, 4.0), early=st.integers(0, 6), seed=st.integers(0, 99))
def test_contacts_do_not_depend_on_where_how_large_and_when(x, y, zoom, early, seed):
    path, _ = bouncing(60, least=6)
    seen = tracks(path, noise=0.1, seed=seed)
    moved = seen.with_(positions=zoom * seen.positions + torch.tensor([x, y]), sigma=zoom * seen.sigma)
    found, again = contacts(seen), contacts(moved)
    assert torch.equal(found.instant, again.instant)
    assert torch.allclose(zoom * found.change, again.change, atol=1e-6)
    later = contacts(Tracks(*(getattr(seen, name)[:, early:] for name in ("positions", "visible", "sigma"))))
    inner = slice(early + 4, None)
    assert torch.equal(found.instant[:, inner], later.instant[:, 4:])


@settings(max_examples=10, deadline=None)
@given(angle=st.floats(0, 6.28), seed=st.integers(0, 99))
def test_contacts_turn_with_the_picture_and_clips_do_not_touch_each_other(angle, seed):
    path, _ = bouncing(60, least=6)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    seen = tracks(path, noise=0.1, seed=seed)
    turned = seen.with_(positions=seen.positions @ turn.T)
    both = contacts(batch([seen, turned, tracks(swinging(len(path)), 0.1)]))
    assert torch.equal(both.instant[0], both.instant[1])
    assert torch.equal(both.instant[:1], contacts(seen).instant)
    assert torch.allclose(both.change[0] @ turn.T, both.change[1], atol=1e-6)


def test_hidden_frames_broken_clips_and_short_clips():
    path, hits = bouncing(60, least=6)
    seen = tracks(path, noise=0.1)
    hidden = seen.visible.clone()
    near = round(hits[0])
    hidden[:, near - 2 : near + 3] = False
    assert not bool(contacts(seen.with_(visible=hidden)).instant[0, near - 3 : near + 4].any())
    broken = torch.cat([torch.full_like(seen.positions, float("nan")), seen.positions])
    both = contacts(Tracks(broken, seen.visible.expand(2, -1, -1), seen.sigma.expand(2, -1, -1)))
    assert torch.equal(both.instant[1:], contacts(seen).instant)
    assert not bool(both.instant[0].any())
    assert not bool(contacts(tracks(path[:5])).instant.any())
    with pytest.raises(InputError, match="significance"):
        contacts(seen, significance=0)


def test_noise_is_what_the_track_states_or_shows():
    still = torch.zeros(1, 400, 1, 2, dtype=torch.float64)
    shown = tracks(still[0, :, 0].numpy(), noise=0.5)
    modest = shown.with_(sigma=torch.full_like(shown.sigma, 0.1))
    assert float(track_noise(modest)) == pytest.approx(0.5, rel=0.15)
    assert float(track_noise(tracks(still[0, :, 0].numpy(), 0.3).with_(positions=still))) == pytest.approx(0.3)


def test_contacts_that_the_caller_gives_win():
    path, _ = bouncing(60, least=6)
    seen = tracks(path, noise=0.1)
    given_ = torch.zeros(1, seen.frames, dtype=torch.bool)
    given_[:, 3] = True
    measured = Measurement(fps=torch.tensor([30.0]), tracks=seen)
    assert torch.equal(contact_frames(measured.with_(contact=given_))[..., 0], given_)
    assert torch.equal(contact_frames(measured), contacts(seen).near)


@pytest.mark.parametrize("before_the_end", [1, 2])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_impact_just_before_the_end_is_cut_out_without_being_called_a_contact(before_the_end, backwards):
    time, hit = np.arange(17.0), 16.4 - before_the_end
    path = np.stack([2 * time, np.where(time < hit, 5 * time, 5 * hit - 4 * (time - hit))], 1)
    found = contacts(tracks(path[::-1].copy() if backwards else path, 0.05, seed=1))
    near = found.near[0, :, 0].flip(0) if backwards else found.near[0, :, 0]
    assert near.nonzero()[:, 0].tolist() == [int(hit), int(hit) + 1]
    assert not bool(found.instant.any())


def test_smooth_paths_have_no_loose_ends():
    for path in (swinging(40, period=24, amplitude=0.8), swinging(17, period=20, amplitude=0.6)):
        for seed in range(10):
            assert not bool(contacts(tracks(path, 0.05, seed=seed)).near.any())
