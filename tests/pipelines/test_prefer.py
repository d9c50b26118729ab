"""Preference data from laws: what hangs in the air loses, the truth itself ties, and what is no group is refused."""

import json
from dataclasses import replace

import pytest
import torch
from posttrain_clips import FRAMES, SIZE, dataset, falling

from visviva.configs import posttrain as settings
from visviva.configs.prefer import PreferRecipe
from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.errors import InputError
from visviva.pipelines import prefer
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.verifier import build

LAWS = [{"name": "constant_acceleration"}, {"name": "motion_floor", "options": {"fraction": 0.5}}]


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """Of each of two true clips: one that stops half way, one that jumps about, and the true one again."""
    true = dataset(tmp_path_factory.mktemp("true"), 2)
    folder = tmp_path_factory.mktemp("generated")
    rows = []
    for i in range(2):
        clip = falling(i)
        stops = clip.frames[torch.arange(FRAMES).clamp(max=4)]
        shaken = torch.stack([f.roll((t % 2) * 3, -1) for t, f in enumerate(clip.frames)])
        for name, frames in (("stops", stops), ("shaken", shaken), ("same", clip.frames)):
            row = type(clip)(frames, clip.fps, caption=clip.caption).write(folder / "clips", f"{i}-{name}", arrays="none")
            source = f"{true}/clips/{i:06d}.mp4"
            rows.append({**row, "id": f"{i}-{name}", "file_name": f"clips/{row['file_name']}", "source": source, "scene": i})
    write_rows(folder / "metadata.jsonl", rows)
    return folder


def test_what_breaks_the_laws_loses_and_the_truth_ties(generated, tmp_path):
    (tmp_path / "vlm.json").write_text(json.dumps({"0-stops": 0.25}))
    deep = str(tmp_path / "in" / "a" / "folder" / "pairs")
    semantic = str(tmp_path / "vlm.json")
    recipe = PreferRecipe(generated=str(generated), output=deep, losers=2, laws=LAWS, semantic=semantic)
    folder = prefer.run(recipe)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert {name.rsplit("-", 1)[-1] for name in row["losers"]} == {"stops.mp4", "shaken.mp4"}
        assert all(physics < row["score"] for _, physics in row["scores"])
        assert row["scores"][0][1] <= row["scores"][1][1]
    told = {name.rsplit("/", 1)[-1]: s[0] for row in rows for name, s in zip(row["losers"], row["scores"], strict=True)}
    assert told["0-stops.mp4"] == 0.25
    assert told["1-stops.mp4"] == 1.0
    example = Examples(settings.Data(path=str(folder), frames=FRAMES, height=SIZE, width=SIZE))[0]
    assert example.losers.shape == (2, FRAMES, 3, SIZE, SIZE)
    assert example.scores.shape == (2, 2)


def one(folder, clip, true, **more):
    """A folder with one generated clip of a true one."""
    row = clip.write(folder / "clips", "one", arrays="none")
    row = {**row, "id": "one", "file_name": f"clips/{row['file_name']}", "source": f"{true}/clips/000000.mp4", **more}
    write_rows(folder / "metadata.jsonl", [row])
    return folder


def test_clips_of_another_rate_or_size_or_a_source_that_is_none_are_refused(tmp_path):
    true, clip = dataset(tmp_path / "true", 1, masks=False), falling(0, masks=False)
    small = torch.nn.functional.interpolate(clip.frames, 16)
    for name, other, more, words in (
        ("rate", replace(clip, fps=8.0), {}, "8 frames/s, its true clip 16"),
        ("size", replace(clip, frames=small), {}, "at the true clips' size"),
        ("source", clip, {"source": 5}, "no 'source'"),
    ):
        folder = one(tmp_path / name, other, true, **more)
        with pytest.raises(InputError, match=words):
            prefer.run(PreferRecipe(generated=str(folder), output=str(tmp_path / f"{name}-out"), losers=1, laws=LAWS))


def test_a_shorter_clip_is_held_against_as_much_of_the_true_one(tmp_path):
    fallen = falling(0, masks=False)
    true = replace(fallen, frames=fallen.frames[torch.arange(FRAMES).clamp(max=5)])  # it stops dead, after frame 5
    row = true.write(tmp_path / "true" / "clips", "000000", arrays="none")
    write_rows(tmp_path / "true" / "metadata.jsonl", [{**row, "file_name": f"clips/{row['file_name']}", "scene": 0}])
    shaken = torch.stack([f.roll((t % 2) * 5, -1) for t, f in enumerate(true.frames[:6])])
    folder = one(tmp_path / "short", replace(true, frames=shaken), tmp_path / "true")
    recipe = PreferRecipe(generated=str(folder), output=str(tmp_path / "out"), losers=1, laws=LAWS)
    (line,) = (prefer.run(recipe) / "metadata.jsonl").read_text().splitlines()
    read = Clip.read(tmp_path / "true" / "clips" / "000000.mp4")
    verifier = build(recipe.laws, recipe.probe, None)
    part, whole = (prefer.score(replace(read, frames=read.frames[:n]), read, verifier) for n in (6, FRAMES))
    assert json.loads(line)["score"] == pytest.approx(part, abs=1e-5)
    assert abs(part - whole) > 0.02


def test_too_few_losers_and_clips_from_nowhere_are_refused(generated, tmp_path):
    with pytest.raises(InputError, match="no pair is left of 2"):
        prefer.run(PreferRecipe(generated=str(generated), output=str(tmp_path / "a"), losers=3, laws=LAWS))
    clips = dataset(tmp_path / "plain", 2)
    with pytest.raises(InputError, match="no 'source'"):
        prefer.run(PreferRecipe(generated=str(clips), output=str(tmp_path / "b"), laws=LAWS))
    with pytest.raises(InputError, match="nothing to score"):
        prefer.run(PreferRecipe())
    (tmp_path / "vlm.json").write_text('{"a": 5}')
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        prefer.run(PreferRecipe(generated=str(generated), semantic=str(tmp_path / "vlm.json"), output=str(tmp_path / "c")))
