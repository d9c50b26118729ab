"""What a clip shows besides a path: a second object, a changing look, a cut, another background; and sound films show none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_films import film, parabola, wall

from visviva.eval.appearance import appearance
from visviva.eval.continuity import changed_background, find_cut
from visviva.eval.recording import Settings, measure_frames
from visviva.eval.track import reduced, track_object

PATH, TIMES = parabola(36, 30.0, (40, 200), (200, -330), 560)
PATH = PATH[:30]


def names(frames):
    track = track_object(frames, torch.arange(len(frames), dtype=torch.float64) / 30)
    return {f.name for f in appearance(track)}


def drawn(**changes):
    return film(PATH, noise=2.0, **changes)


def pulsing():
    frames = [film(PATH[k : k + 1], radius=9 * (1 + 0.5 * np.exp(-(((k - 15) / 4) ** 2))), seed=0) for k in range(30)]
    return torch.cat(frames)


def swelling_in_flight():
    sizes = 5 * (1 + 0.5 * np.exp(-(((np.arange(30) - 12) / 6) ** 2)))  # most of the flight, in steps of one and a half widths
    return torch.cat([film(PATH[k : k + 1], radius=sizes[k], seed=0) for k in range(30)])


def turning_red():
    shades = [(235 - 0 * k, max(220 - 9 * k, 0), 60) for k in range(30)]
    return torch.cat([film(PATH[k : k + 1], colour=shades[k], seed=0) for k in range(30)])


def with_double():
    frames = drawn()
    away = PATH + np.maximum(np.arange(30) - 12, 0)[:, None] * np.array([0.0, -6.0])
    second = film(away, noise=2.0)
    ys, xs = np.mgrid[:240, :320]
    for k in range(13, 30):
        near = torch.from_numpy(np.hypot(xs - away[k, 0], ys - away[k, 1]) < 11)
        frames[k][:, near] = second[k][:, near]
    return frames


def before_another_wall():
    frames = [
        film(PATH[k : k + 1], background=wall(240, 320, 0) * (1 - k / 50) + wall(240, 320, 5) * k / 50) for k in range(30)
    ]
    return torch.cat(frames)


def test_a_sound_film_has_nothing_against_it():
    assert names(drawn()) == set()
    assert names(drawn(blur=np.gradient(PATH, axis=0) * 0.6)) == set()


@pytest.mark.parametrize(
    ("frames", "name"),
    [
        (pulsing, "changes size"),
        (swelling_in_flight, "changes size"),
        (turning_red, "changes look"),
        (with_double, "duplicates"),
        (before_another_wall, "background changes"),
    ],
)
def test_what_changes_is_named(frames, name):
    assert name in names(frames())


def test_a_ball_that_is_gone_for_a_while_vanishes():
    gone = PATH.copy()
    gone[13:19] = np.nan
    track = track_object(film(gone), torch.arange(30, dtype=torch.float64) / 30)
    verdict = measure_frames(film(gone), torch.arange(30, dtype=torch.float64) / 30, Settings(laws=False)).verdict
    assert "vanishes" in {f.name for f in appearance(track)} | {f.name for f in verdict.findings}


def test_a_cut_is_found_and_the_clip_refused_with_the_place_but_a_flash_is_none():
    other = film(PATH[12:] * 0.8 + 20, background=wall(240, 320, 9))
    frames = torch.cat([drawn()[:15], other])
    assert find_cut(reduced(frames)) == 14
    result = measure_frames(frames, torch.arange(len(frames), dtype=torch.float64) / 30, Settings(laws=False))
    assert "after frame 14" in result.reason
    assert [f.name for f in result.verdict.findings] == ["cuts"]
    flash = drawn()
    flash[15] = 255 - flash[15] // 4
    assert find_cut(reduced(flash)) is None
    assert find_cut(reduced(drawn())) is None


def test_walls_without_texture_are_told_by_their_colour_but_not_by_a_lamp():
    plain = [np.full((240, 320, 3), colour, np.float32) for colour in ((60, 130, 115), (150, 150, 130), (90, 195, 172))]
    one, other, lit = (film(PATH, background=wall, noise=2.0) for wall in plain)
    assert find_cut(reduced(torch.cat([one[:15], other[15:]]))) == 14
    assert find_cut(reduced(torch.cat([one[:15], lit[15:]]))) is None
    share = np.linspace(0, 1, 30, dtype=np.float32)[:, None, None, None]
    for end, least, most in ((other, 1.0, 1.0), (lit, 0.0, 0.1)):
        fading = (one.numpy() * (1 - share) + end.numpy() * share).transpose(0, 2, 3, 1).astype(np.uint8)
        assert least <= changed_background(fading) <= most


def test_what_cannot_be_scored_says_why_in_the_numbers_too():
    empty = measure_frames(film(np.full((12, 2), np.nan)), torch.arange(12, dtype=torch.float64) / 30, Settings(laws=False))
    told = empty.to_json()
    assert told["score"] is None
    assert told["why"].startswith("Not scored: nothing moves")
