"""A real recording ranks before the same experiment with its physics broken, and the break is named.

The clips are taken apart into background and object and played again (`broken_recordings`): by their own path, which must not
be found broken, and by broken ones. What cannot be told is said: a flight without visible drag looks the same played backwards.
"""

from __future__ import annotations

import pytest
import torch
from broken_recordings import Recorded, broken

from visviva.eval.recording import Settings, measure_frames

pytestmark = [pytest.mark.real, pytest.mark.slow]

CLIPS = {
    "tennis": ("tennis_throw_luca.mp4", {}, 0.5),
    "ball up": ("ball_up_trflorian.mp4", {"longest": 640}, 0.65),
    "projectile": ("bmc_projectile.mp4", {"every": 2, "last": 104}, 0.5),  # up to the film's own hiccup
}
KINDS = ["floats", "jitters", "vanishes", "skips time", "changes speed", "jumps", "stops dead"]


@pytest.fixture(scope="module", params=list(CLIPS))
def recorded(request, real):
    torch.set_num_threads(1)
    name, options, share = CLIPS[request.param]
    clip = Recorded(real / "video" / name, **options)
    return request.param, clip, share, judged(clip, clip.frames)


def judged(clip, frames):
    return measure_frames(frames, clip.times[: len(frames)], Settings(laws=False)).verdict


def test_its_own_path_played_again_is_not_found_broken(recorded):
    _, clip, _, real = recorded
    assert judged(clip, broken(clip, "own")).score >= 0.95 * real.score


def test_every_broken_version_ranks_behind_and_most_breaks_are_named(recorded):
    name, clip, share, real = recorded
    named, said = {}, {}
    for kind in KINDS:
        verdict = judged(clip, broken(clip, kind, share))
        assert verdict.score < real.score, (name, kind, verdict.sentence)
        named[kind] = kind in [f.name for f in verdict.findings]
        said[kind] = verdict.sentence
    assert sum(named.values()) >= (3 if name == "ball up" else 4), (name, named, said)
    assert named["vanishes"], named
    assert named["jitters"], named
    assert named["jumps"], named
