"""Experts that are told which physics a clip shows: by the data or by an annotator, with clear words where nothing is known."""

import json

import pytest
import torch
from posttrain_clips import dataset, lines, short_recipe

from visviva.configs.posttrain import PosttrainRecipe
from visviva.configs.schema import load
from visviva.errors import InputError
from visviva.models.experts import Annotation, parts_of, saved
from visviva.models.experts.prophy import coarse_alignment
from visviva.pipelines.posttrain import run
from visviva.pipelines.posttrain.annotator import Annotator, FromData
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.video import VideoTrainer

ALIGN = {"semantic": 1.0, "refinement": 1.0, "balance": 0.01}
KINDS = ("falls", "rolls", "falls", "rolls")


def labelled(folder, kinds=KINDS, masks=True):
    dataset(folder, len(kinds), masks)
    listed = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    for row, kind in zip(rows, kinds, strict=True):
        row["primitive"] = kind
        row["caption"] = f"ball {kind}"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def recipe(clips, tiny, tmp_path):
    def make(align=ALIGN, data=clips, method="sft", experts=(), **sections):
        chosen = {"kind": "prophy", "blocks": 1, "semantic": 3, "align": align, **dict(experts)}
        return short_recipe(tmp_path / "run", tiny, data, method, **{"experts": chosen, "batch_size": 4, **sections})

    return make


def test_the_losses_are_logged_and_added(recipe):
    trainer = VideoTrainer(recipe())
    batch = trainer.batch(0, 0)
    assert batch.labels.shape == (4, 2)
    assert torch.equal(batch.labels.sum(1), torch.ones(4))
    assert batch.seen.shape == (4, 5 * 2 * 2, 2)
    assert torch.equal(batch.seen.any(1), batch.labels.bool()), "only the clip's own phenomenon is seen in it"
    loss, logs = trainer.objective(batch)
    told = sum(ALIGN[name] * logs[f"experts/{name}"] for name in ALIGN)
    assert torch.allclose(loss, logs["flow_matching"] + told)
    routed = next(parts_of(trainer.backbone.transformer)).semantic.weights
    assert float(logs["experts/semantic"][0]) == pytest.approx(float(coarse_alignment(routed, batch.labels).detach()), abs=1e-6)


def test_told_experts_tell_the_clips_apart_and_are_kept(recipe):
    """40 updates: prompts of two phenomena are routed apart, which flow matching alone does not do."""
    fast = {"lr": 1e-4, "groups": [{"pattern": "router|told", "lr": 5e-2}]}
    result = run(recipe(max_steps=40, optimizer=fast, sft={"checkpointing": False}))
    found = [row["experts/semantic"] for row in lines(result.output)]
    assert found[-1] < 0.1 * found[0]
    again = VideoTrainer(recipe(max_steps=40, optimizer=fast))
    assert saved.options_of(again.backbone.transformer)["phenomena"] == ["falls", "rolls"]
    batch = again.batch(0, 0)
    with torch.no_grad():
        again.objective(batch)
    first = next(parts_of(again.backbone.transformer)).semantic.weights.argmax(1)
    kind = batch.labels.argmax(1)
    assert len(set(first[kind == 0].tolist())) == len(set(first[kind == 1].tolist())) == 1
    assert first[kind == 0][0] != first[kind == 1][0]


def test_clips_without_caption_are_told_nothing(recipe):
    trainer = VideoTrainer(recipe(align={"semantic": 1.0}, sft={"caption_dropout": 1.0}))
    _, logs = trainer.objective(trainer.batch(0, 0))
    assert float(logs["experts/semantic"][0]) == 0.0


class Asked:
    """What a vision-language model would be: labels and coarse maps from the clip alone."""

    name, phenomena = "asked", ("left", "right")

    def __init__(self):
        self.calls = 0

    def __call__(self, clip):
        self.calls += 1
        side = float(clip.frames[0, 0, :, 16:].mean() > clip.frames[0, 0, :, :16].mean())
        maps = torch.zeros(5, 2, 2, 2)
        maps[:, int(side), 0] = 1.0
        return Annotation(torch.tensor([1.0 - side, side]), maps)


def test_an_annotator_takes_the_place_of_the_data_and_is_asked_once(recipe):
    asked = Asked()
    assert isinstance(asked, Annotator)
    trainer = VideoTrainer(recipe(), annotator=asked)
    assert asked.calls == 4
    batch = trainer.batch(0, 0)
    assert torch.equal(batch.seen.any(1), batch.labels.bool())
    assert int(batch.seen.sum()) == 4 * 5 * 2
    trainer.run()
    VideoTrainer(recipe(max_steps=3), annotator=asked).run()
    assert asked.calls == 4
    with pytest.raises(InputError, match="annotator was 'asked', now 'data: primitive'"):
        VideoTrainer(recipe(max_steps=4))


def test_a_list_names_several_phenomena(tmp_path, recipe):
    folder = labelled(tmp_path / "several", (["falls", "spins"], "spins"))
    told = FromData(Examples(recipe(data=folder).data), "primitive", masks=True)
    assert told.phenomena == ("falls", "spins")
    examples = Examples(recipe(data=folder).data)
    both = told(examples[0])
    assert torch.equal(both.labels, torch.ones(2))
    assert torch.equal(both.seen[:, 0], examples[0].masks.any(1).float())
    assert told(examples[1]).labels.tolist() == [0.0, 1.0]


def test_what_cannot_be_told_is_refused_with_a_remedy(recipe, tmp_path):
    refused = [
        (recipe(experts={"kind": "none"}), r"experts\.kind: prophy"),
        (recipe(method="dpo"), "use sft"),
        (recipe(batch_size=1), "batch_size is 1"),
        (recipe(data=dataset(tmp_path / "bare", 2)), "simulate writes 'primitive'"),
        (recipe(data=labelled(tmp_path / "one", ("falls", "falls"))), "nothing to tell apart"),
        (recipe(data=labelled(tmp_path / "maskless", masks=False)), "no masks; simulate with arrays"),
        (recipe(experts={"labels": "kind"}), "set experts.labels to the field"),
    ]
    for wrong, words in refused:
        with pytest.raises(InputError, match=words):
            run(wrong)
    VideoTrainer(recipe(align={"semantic": 1.0}, data=labelled(tmp_path / "again", masks=False)))  # labels need no masks

    class Wrong(Asked):
        def __call__(self, clip):
            return Annotation(torch.ones(3))

    with pytest.raises(InputError, match=r"labels \(3,\) of 2 phenomena"):
        run(recipe(), annotator=Wrong())
    Wrong.__call__ = lambda self, clip: Annotation(torch.ones(2))
    with pytest.raises(InputError, match="maps None of 2 phenomena"):
        run(recipe(), annotator=Wrong())


def test_the_shipped_recipe_aligns():
    shipped = load(PosttrainRecipe, "posttrain-experts", **{"data.path": "somewhere"})
    shipped.check()
    assert shipped.experts.align.model_dump() == {"semantic": 0.1, "refinement": 0.2, "balance": 0.01}
