"""What post-training refuses or learns nothing from: groups of one, equal rewards, ties, checkpoints of something else."""

import pytest
import torch
from posttrain_clips import falling, short_recipe
from safetensors.torch import load_file, save_file

from visviva.configs import posttrain as settings
from visviva.configs.schema import load
from visviva.data.dataset import write_rows
from visviva.errors import InputError
from visviva.models.backbones.lora import FILE, load_lora
from visviva.models.backbones.tiny import tiny_wan
from visviva.pipelines.posttrain import run
from visviva.pipelines.posttrain.video import VideoTrainer


@pytest.fixture
def recipe(clips, tiny, tmp_path):
    def make(method, path=clips, **sections):
        return short_recipe(tmp_path / "run", tiny, path, method, **{"max_steps": 1, **sections})

    return make


def test_a_group_of_one_is_refused_by_its_name():
    with pytest.raises(InputError, match=r"grpo\.group"):
        load(settings.PosttrainRecipe, None, **{"method": "grpo", "data.path": "clips", "grpo.group": 1})


def test_equal_rewards_move_nothing(recipe):
    """Laws of weight 0 score all clips alike, whatever they show."""
    laws = [{"name": "motion_floor", "weight": 0.0, "options": {"least": 0.5}}]
    alike = VideoTrainer(recipe("grpo", reward={"laws": laws, "reference": "none"}, optimizer={"lr": 1e-2}))
    before = {name: p.detach().clone() for name, p in alike.parameters.items()}
    values = alike.update(0)
    assert values["taught"] == 0
    assert values["grad_norm"] == 0
    assert all(torch.equal(p, before[name]) for name, p in alike.parameters.items())


def test_a_loser_that_is_the_winner_is_refused_by_both_preference_methods(recipe, tmp_path):
    clip = falling(0)
    row = clip.write(tmp_path / "tied", "true", arrays="small")
    clip.write(tmp_path / "tied", "again", arrays="none")
    write_rows(tmp_path / "tied" / "metadata.jsonl", [{**row, "losers": ["again.mp4"], "scores": [[1.0, 1.0]], "scene": 0}])
    for method in ("dpo", "phygdpo"):
        with pytest.raises(InputError, match="shows the same frames"):
            run(recipe(method, path=tmp_path / "tied"))


def test_a_checkpoint_of_another_objective_is_not_continued(recipe):
    run(recipe("sft"))
    with pytest.raises(InputError, match="method was 'sft', now 'refl'"):
        run(recipe("refl", max_steps=2, reward={"laws": [{"name": "motion_floor"}], "reference": "none"}))
    with pytest.raises(InputError, match=r"attention\.kind was None, now 'momentum'"):
        run(recipe("sft", max_steps=2, attention={"kind": "momentum", "gamma": 0.2}))


def test_adapters_whose_keys_match_nothing_or_not_all_are_refused(tmp_path):
    backbone = tiny_wan("test")
    backbone.add_lora(2)
    backbone.save_lora(tmp_path)
    whole = load_file(tmp_path / FILE)
    save_file({name.replace("blocks", "layers"): t for name, t in whole.items()}, tmp_path / FILE)
    with pytest.raises(InputError, match=r"fit"):
        load_lora(tiny_wan("test"), tmp_path)
    name = next(iter(whole))
    save_file({**whole, name.replace("blocks.0", "blocks.77"): whole[name].clone()}, tmp_path / FILE)
    with pytest.raises(InputError, match=r"fit"):
        load_lora(tiny_wan("test"), tmp_path)
