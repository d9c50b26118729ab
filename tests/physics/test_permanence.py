"""Permanence: what counts as vanishing, what excuses it, jumps and exchanged looks."""

import pytest
import torch

from visviva.errors import InputError
from visviva.physics import Measurement
from visviva.physics.laws.permanence import Permanence
from visviva.physics.tracks import Tracks

LAW, STEPS, RADIUS = Permanence(), 12, 6.0


def discs(places, visible=None, area=1.0, look=None):
    """Tracks of discs at places (T, N, 2) in an image of 64 x 64 pixels."""
    place = torch.as_tensor(places, dtype=torch.float32)[None]
    seen = torch.ones(place.shape[:3], dtype=torch.bool) if visible is None else torch.as_tensor(visible)[None]
    full = torch.pi * RADIUS**2 * torch.as_tensor(area, dtype=torch.float32) * seen
    moments = RADIUS**2 / 4 * torch.eye(2).expand(*place.shape[:3], 2, 2)
    tracks = Tracks(
        place, seen, torch.full(place.shape[:3], 0.1), area=full.expand(place.shape[:3]), moments=moments, look=look
    )
    return Measurement(fps=torch.ones(1), masks=torch.zeros(*place.shape[:3], 64, 64), tracks=tracks)


def standing(*where):
    return torch.tensor(where).expand(STEPS, -1, 2)


def from_frame(first, count=1):
    return (torch.arange(STEPS) >= first)[:, None].expand(-1, count)


def test_what_stays_obeys_and_what_vanishes_costs_the_share_of_frames_without_it():
    assert float(LAW(discs(standing((30.0, 30.0)))).value) == 0.0
    gone = discs(standing((30.0, 30.0)), visible=~from_frame(9))
    assert float(LAW(gone).value) == pytest.approx(3 / 12 * 0.85)
    appearing = discs(standing((30.0, 30.0)), visible=from_frame(3))
    assert float(LAW(appearing).value) == pytest.approx(3 / 12 * 0.85)
    fading = discs(standing((30.0, 30.0)), area=torch.linspace(1, 0.25, STEPS)[:, None])
    assert float(LAW(fading).value) > 0.05


def test_the_border_excuses():
    leaving = standing((30.0, 30.0)).clone()
    leaving[:, 0, 0] = 30.0 + 4 * torch.arange(STEPS)
    out = leaving[:, :, 0] > 64
    assert bool(out.any())
    residual = LAW(discs(leaving, visible=~out))
    assert float(residual.value) == 0.0
    assert bool(residual.valid)


def test_another_object_excuses_while_it_is_seen_itself():
    near = standing((30.0, 30.0), (41.0, 30.0))
    hidden = torch.stack([~from_frame(6)[:, 0], torch.ones(STEPS, dtype=torch.bool)], dim=1)
    alone = discs(near + torch.tensor([[0.0, 0.0], [12.0, 0.0]]), visible=hidden)
    assert float(LAW(alone).value) > 0.1
    begin = near.clone()
    begin[:, 1, 0] = (55.0 - 3 * torch.arange(STEPS)).clamp(min=41.0)  # seen whole at first, then it comes and covers the other
    covered = discs(begin, visible=hidden)
    assert float(LAW(covered).value) < float(LAW(alone).value) / 4
    both = discs(begin, visible=~from_frame(6, 2))
    assert float(LAW(both).value) > 0.1


def test_a_jump_beyond_the_diameter_is_a_vanishing_here_and_an_appearing_there():
    path = standing((20.0, 30.0)).clone()
    path[6:, 0, 0] = 20.0 + 3 * RADIUS
    assert float(LAW(discs(path)).value) == pytest.approx(2 * 0.5)  # 1.5 diameters, in two second differences
    path[6:, 0, 0] = 20.0 + RADIUS
    assert float(LAW(discs(path)).value) == pytest.approx(0.0, abs=1e-6)


def test_a_fast_bounce_is_no_teleport():
    path = standing((20.0, 30.0)).clone()
    path[:, 0, 1] = 10.0 + 8 * (5 - (torch.arange(STEPS) - 5).abs())
    bounce = discs(path)
    contact = (torch.arange(STEPS) == 5)[None]
    assert float(LAW(bounce.with_(contact=torch.zeros_like(contact))).value) > 0.3
    assert float(LAW(bounce.with_(contact=contact)).value) == 0.0
    assert float(LAW(bounce).value) == 0.0  # the contact is found in the track


def test_exchanged_looks_cost_the_share_of_frames_after_the_exchange():
    look = torch.eye(2)[None, None].expand(1, STEPS, 2, 2).clone()
    place = standing((15.0, 30.0), (45.0, 30.0))
    assert float(LAW(discs(place, look=look)).value) == 0.0
    look[:, 6:] = look[:, 6:].flip(2)
    assert float(LAW(discs(place, look=look)).value) == pytest.approx(0.5)
    alike = torch.nn.functional.normalize(torch.ones(2, 2) + 0.01 * torch.eye(2), dim=-1)
    look = alike.expand(1, STEPS, 2, 2).clone()
    look[:, 6:] = look[:, 6:].flip(2)
    assert float(LAW(discs(place, look=look)).value) == 0.0  # twins cannot be told apart


def test_a_body_never_seen_whole_is_not_judged_and_bad_tolerances_are_refused():
    assert not bool(LAW(discs(standing((2.0, 30.0)))).valid)
    assert not bool(LAW(discs(standing((30.0, 30.0)), visible=from_frame(99))).valid)
    with pytest.raises(InputError, match=r"slack 1\.5 must lie"):
        Permanence(slack=1.5)
    bare = Tracks(torch.zeros(1, 5, 1, 2), torch.ones(1, 5, 1, dtype=torch.bool), torch.ones(1, 5, 1))
    with pytest.raises(InputError, match="needs the area"):
        LAW(Measurement(fps=torch.ones(1), tracks=bare))


def test_two_objects_that_exchange_their_places_from_one_frame_to_the_next_are_seen_and_a_collision_is_not():
    time = torch.arange(STEPS, dtype=torch.float32)
    left, right = 14 + 3 * time, 50 - 3 * time  # they touch, 12 px apart, in frame 4
    bounce = torch.where(time <= 4, left, 26 - 3 * (time - 4)), torch.where(time <= 4, right, 38 + 3 * (time - 4))
    hit = torch.stack([torch.stack([x, torch.full_like(x, 30.0)], -1) for x in bounce], 1)
    assert float(LAW(discs(hit)).value) == 0.0
    swapped = torch.where((time > 4)[:, None, None], hit.flip(1), hit)
    assert float(LAW(discs(swapped)).value) > 0.4
    through = torch.stack([torch.stack([x, torch.full_like(x, 30.0)], -1) for x in (left, right)], 1)
    assert float(LAW(discs(through)).value) == 0.0  # a smooth path: interpenetration, or one behind the other


def test_a_few_pixels_that_are_left_of_an_object_are_not_the_object():
    there = torch.where(from_frame(4), 0.02, 1.0)
    assert float(LAW(discs(standing((30.0, 30.0)), area=there)).value) == pytest.approx(8 / 12 * 0.85)
