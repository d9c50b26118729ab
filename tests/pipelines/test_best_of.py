"""Best of N: which candidate is kept, what a frozen clip may not win, and the same clips again."""

import json
from threading import Event
from types import SimpleNamespace

import pytest
import torch
from posttrain_clips import FPS, FRAMES, SIZE, falling

from visviva.configs.generate import GenerateRecipe
from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.models.probes import TrackedMasks
from visviva.pipelines import generate
from visviva.pipelines.best_of import best_of
from visviva.pipelines.posttrain.verifier import build


@pytest.fixture
def recipe(clips, tiny, tmp_path):
    def make(output, **sections):
        base = {
            "prompts": str(clips), "output": str(tmp_path / output), "model": {"path": str(tiny), "device": "cpu"}, "crf": 0,
            "frames": FRAMES, "height": SIZE, "width": SIZE, "fps": FPS, "sampler": {"steps": 2}, "batch_size": 2,
        }  # fmt: skip
        return GenerateRecipe.model_validate({**base, **sections})

    return make


def rows(output):
    return [json.loads(line) for line in (output / "metadata.jsonl").read_text().splitlines()]


def pixels(output):
    return torch.stack([read_video(output / row["file_name"]).frames for row in rows(output)])


def test_each_clip_keeps_its_best_candidate_and_the_first_of_equals():
    made = torch.arange(3.0).view(3, 1, 1, 1, 1, 1).expand(3, 2, 4, 3, 8, 8)
    given = iter(torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 4.0]]))
    kept, scores, chosen = best_of(iter(made), lambda _: next(given))
    assert chosen.tolist() == [1, 0]
    assert kept[:, 0, 0, 0, 0].tolist() == [1.0, 0.0]
    assert scores.shape == (3, 2)
    with pytest.raises(InputError, match="candidate 0 no number"):
        best_of(iter(made), lambda x: torch.full((len(x),), float("nan")))
    with pytest.raises(InputError, match="no candidate"):
        best_of(iter([]), lambda x: x.flatten(1).mean(1))


def test_the_next_candidate_is_made_while_the_last_is_judged():
    made, began = torch.rand(4, 2, 4, 3, 8, 8), [Event() for _ in range(5)]

    def candidates():
        for k, frames in enumerate(made):
            began[k].set()
            yield frames

    def score(frames):
        k = next(i for i, own in enumerate(made) if own is frames or torch.equal(own, frames))
        assert k == 3 or began[k + 1].wait(20), "nothing is made while this one is judged"
        return frames.flatten(1).mean(1)

    plain = best_of(iter(made), lambda x: x.flatten(1).mean(1))
    for one, other in zip(plain, best_of(candidates(), score, ahead=True), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="candidate 0 no number"):
        best_of(iter(made), lambda x: torch.full((len(x),), float("nan")), ahead=True)
    with pytest.raises(InputError, match="no candidate"):
        best_of(iter([]), lambda x: x.flatten(1).mean(1), ahead=True)


@pytest.mark.parametrize("first", ["frozen", "empty", "moving"])
def test_a_frozen_or_empty_clip_does_not_win(first):
    """The default laws, and objects followed from their first masks."""
    true = falling(1)
    frozen = true.frames[:1].expand_as(true.frames)
    empty = torch.cat([true.frames[:1], frozen[1:] * 0 + true.frames.median()])
    candidates = {"frozen": frozen, "empty": empty, "moving": true.frames}
    names = [first, *(name for name in candidates if name != first)]
    settings = GenerateRecipe().best
    verifier = build(settings.laws, settings.probe, None)

    def score(frames):
        masks = TrackedMasks()(frames, true.masks[None, :1].float())
        return verifier.score(frames, torch.tensor([FPS]), masks=masks).log_reward

    _, _, chosen = best_of((candidates[name][None] for name in names), score)
    assert names[int(chosen)] == "moving"


def test_laws_that_a_frozen_clip_satisfies_need_an_anchor(recipe):
    with pytest.raises(InputError, match="add an anchor"):
        generate.run(recipe("out", best={"of": 2, "laws": [{"name": "constant_acceleration"}], "masks": "none"}))


@pytest.mark.parametrize("masks", ["track", "none"])
def test_the_best_of_three_is_written_with_all_scores_and_the_same_again(recipe, masks, monkeypatch):
    asked = {"best": {"of": 3, "masks": masks, "laws": [{"name": "motion_floor", "options": {"least": 50.0}}]}}
    encoded, encode = [], generate.encoded
    monkeypatch.setattr(generate, "encoded", lambda *a: encoded.append(1) or encode(*a))
    first = generate.run(recipe("a", **asked))
    assert len(encoded) == 2  # once per batch, not per candidate
    again = generate.run(recipe("b", **asked, seed=0, batch_size=3))
    assert [row["chosen"] for row in rows(first)] == [row["chosen"] for row in rows(again)]
    for row, other in zip(rows(first), rows(again), strict=True):
        assert len(row["scores"]) == 3
        assert row["scores"] == pytest.approx(other["scores"], abs=1e-4)
        assert row["chosen"] == max(range(3), key=row["scores"].__getitem__)
        assert len(set(row["scores"])) == 3  # noise of their own
    plain = generate.run(recipe("plain"))
    same = [bool((a == b).all()) for a, b in zip(pixels(first), pixels(plain), strict=True)]
    assert same == [row["chosen"] == 0 for row in rows(first)]


def test_one_candidate_is_generation_without(recipe):
    one, plain = generate.run(recipe("one", best={"of": 1})), generate.run(recipe("plain"))
    assert torch.equal(pixels(one), pixels(plain))
    assert "scores" not in rows(one)[0]
    with pytest.raises(InputError, match="best"):
        generate.run(recipe("one", best={"of": 2}))


def test_candidates_that_score_alike_keep_the_first(recipe, monkeypatch):
    def score(frames, fps, masks):
        return SimpleNamespace(log_reward=torch.zeros(len(frames)))

    alike = SimpleNamespace(score=score, probe=SimpleNamespace(features=None))
    monkeypatch.setattr(generate, "build", lambda *a, **k: alike)
    output = generate.run(recipe("out", best={"of": 3, "masks": "none"}))
    assert [row["chosen"] for row in rows(output)] == [0, 0, 0]
    monkeypatch.undo()
    assert torch.equal(pixels(output), pixels(generate.run(recipe("plain"))))
