"""What is not there, or cannot be followed, costs: gone for a moment in mid-air, another colour, a second ball that stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_films import film, parabola, wall

from visviva.eval.recording import Settings, measure_frames

COUNT, FPS, YELLOW, BLUE = 36, 30.0, (235, 220, 60), (60, 60, 235)
PATH, TIMES = parabola(COUNT, FPS, (25.0, 175.0), (230.0, -270.0), 480.0)


def verdict(frames: torch.Tensor):
    return measure_frames(frames, torch.from_numpy(TIMES[: len(frames)]), Settings(laws=False)).verdict


def thrown(seen=lambda k: True, colour=YELLOW, **look) -> torch.Tensor:
    path = PATH.copy()
    path[[k for k in range(COUNT) if not seen(k)]] = np.nan
    return film(path, radius=13.0, colour=colour, **look)


def names(found) -> list[str]:
    return [f.name for f in found.findings]


@pytest.fixture(scope="module")
def sound():
    return thrown()


def test_the_whole_film_has_nothing_against_it(sound):
    found = verdict(sound)
    assert found.score == 1.0, found.sentence
    assert "frames; nothing is said of the others" not in found.sentence


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_an_object_that_is_gone_for_a_moment_in_mid_air_vanishes(missing):
    found = verdict(thrown(lambda k: not 16 <= k < 16 + missing))
    assert names(found)[0] == "vanishes", found.sentence
    assert found.score < 0.35
    assert f"gone after frame 15 and back at frame {16 + missing}" in found.sentence


def test_a_moment_in_which_the_object_could_not_be_seen_anyway_is_no_vanishing():
    """Something of its own colour stands behind it, or something hides it: neither is a vanishing (its size changes there)."""
    still = wall(240, 320)
    x, y = PATH[16].astype(int)
    hidden = still.copy()
    hidden[y - 40 : y + 40, x - 20 : x + 20] = np.array(YELLOW) * 0.85
    assert "vanishes" not in names(verdict(thrown(lambda k: k != 16, background=hidden)))
    behind = thrown(background=still)
    post = film(np.full((COUNT, 2), np.nan), background=still)
    behind[:, :, :, x - 14 : x + 14] = post[:, :, :, x - 14 : x + 14]
    assert "vanishes" not in names(verdict(behind))


def test_a_change_of_colour_half_way_is_found_and_what_was_not_followed_costs(sound):
    found = verdict(torch.cat([sound[:18], thrown(colour=BLUE)[18:]]))
    assert {"changes look", "is lost"} <= set(names(found)), found.sentence
    assert found.score < 0.35
    assert "could not be followed in 50% of the clip" in " ".join(f.sentence for f in found.findings)
    assert "18 of 36 frames" in found.sentence


@pytest.mark.parametrize("frames", [(14, COUNT), (0, 22)])
def test_a_second_ball_that_comes_out_of_nothing_and_stays_or_was_there_and_goes_is_found(sound, frames):
    """It is there for more than half of the clip, and so part of the background."""
    still = film(np.array([[250.0, 205.0]]), radius=13.0, noise=0.0)[0].permute(1, 2, 0).numpy()
    with_it = thrown(background=still.astype(np.float32))
    both = sound.clone()
    both[slice(*frames)] = with_it[slice(*frames)]
    found = verdict(both)
    assert names(found) == ["duplicates"], found.sentence
    assert found.score < 0.35
    assert verdict(with_it).score == 1.0  # there all the time: a ball that lies there


def test_a_ball_that_comes_to_rest_is_not_its_own_double():
    path = np.concatenate([PATH[:14], np.repeat(PATH[13:14], 26, axis=0)])
    frames = film(path, radius=13.0)
    times = torch.arange(len(path), dtype=torch.float64) / FPS
    assert "duplicates" not in names(measure_frames(frames, times, Settings(laws=False)).verdict)


def test_a_ball_on_its_way_out_that_is_gone_before_it_leaves_vanishes_and_one_that_leaves_does_not():
    path, _ = parabola(COUNT, FPS, (25.0, 90.0), (230.0, -60.0), 480.0)
    leaves = film(path, radius=13.0)
    found = measure_frames(leaves, torch.from_numpy(TIMES), Settings(laws=False))
    assert found.track.ends[1] == "border"
    assert found.verdict.score == 1.0, found.verdict.sentence
    out = int(np.argmax(path[:, 1] > 240 - 13))  # touches the border
    path[out:] = np.nan
    assert names(verdict(film(path, radius=13.0))) == ["vanishes"]
