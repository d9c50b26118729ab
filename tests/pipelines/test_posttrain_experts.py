"""ProPhy's branch in post-training: nothing changes at first, it learns beside the adapters, and comes back with them."""

import pytest
import torch
from posttrain_clips import FRAMES, SIZE, short_recipe
from safetensors.torch import save_file

from visviva.errors import InputError
from visviva.models.backbones.lora import load_lora, weight_files
from visviva.models.backbones.wan import WanBackbone
from visviva.models.experts import saved
from visviva.pipelines.posttrain import run
from visviva.pipelines.posttrain.video import VideoTrainer

PROPHY = {"kind": "prophy", "blocks": 1, "semantic": 3}


@pytest.fixture
def recipe(clips, tiny, tmp_path):
    def make(method="sft", **sections):
        return short_recipe(tmp_path / "run", tiny, clips, method, **{"experts": PROPHY, **sections})

    return make


@torch.no_grad()
def velocity(backbone, condition):
    noise = torch.randn(1, *backbone.latent_shape(1, FRAMES, SIZE, SIZE)[1:], generator=torch.Generator().manual_seed(3))
    return backbone.velocity(noise, torch.full((1,), 0.5), condition)


def condition_of(tiny):
    return WanBackbone.load(str(tiny)).condition(["a ball falls"], torch.full((1, 3, SIZE, SIZE), 0.3), frames=FRAMES)


def test_before_the_first_update_the_model_is_the_base_bit_by_bit(recipe, tiny):
    trainer, condition = VideoTrainer(recipe()), condition_of(tiny)
    assert torch.equal(velocity(trainer.backbone, condition), velocity(WanBackbone.load(str(tiny)), condition))
    names = [name for name in trainer.parameters if saved.is_expert(name)]
    assert any(".semantic." in name for name in names)
    assert any(".copied." in name for name in names)
    assert not any("lora" in name for name in names)


@pytest.mark.parametrize("ema", ["none", "constant"])
def test_experts_are_trained_saved_and_put_back(recipe, tiny, ema):
    trainer = VideoTrainer(recipe(max_steps=3, optimizer={"lr": 1e-2}, ema={"schedule": ema, "decay": 0.5}))
    before = {name: p.detach().clone() for name, p in trainer.parameters.items() if saved.is_expert(name)}
    result = trainer.run()
    moved = [name for name, old in before.items() if not torch.equal(old, trainer.parameters[name])]
    assert any(".inject." in name for name in moved)
    assert any(".copied." in name for name in moved)
    condition = condition_of(tiny)
    again = WanBackbone.load(str(tiny))
    load_lora(again, result.weights)
    wanted = velocity(trainer.backbone, condition)
    assert torch.allclose(velocity(again, condition), wanted, atol=1e-6)
    plain = WanBackbone.load(str(tiny))
    plain.pipeline.load_lora_weights(str(result.weights))  # diffusers alone knows no experts
    assert not torch.allclose(velocity(plain, condition), wanted, atol=1e-6)
    assert result.weights / saved.FILE in weight_files(result.weights)
    assert saved.options_of(again.transformer) == {"blocks": 1, "semantic": 3, "refinement": 5, "active": 2}


def test_a_killed_run_goes_on_and_another_number_of_experts_does_not(recipe):
    short = VideoTrainer(recipe(max_steps=2))
    short.run()
    trained = {name: p.detach().clone() for name, p in short.parameters.items()}
    longer = VideoTrainer(recipe(max_steps=3))
    assert longer.step == 2
    assert all(torch.equal(p, trained[name]) for name, p in longer.parameters.items())
    with pytest.raises(InputError, match=r"experts\.semantic was 3, now 4"):
        VideoTrainer(recipe(max_steps=3, experts={"kind": "prophy", "blocks": 1, "semantic": 4}))


def test_the_reference_is_without_experts(recipe, tiny):
    trainer, condition = VideoTrainer(recipe("grpo", grpo={"group": 2, "kl": 0.1})), condition_of(tiny)
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            if ".inject." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    base = velocity(WanBackbone.load(str(tiny)), condition)
    assert not torch.allclose(velocity(trainer.backbone, condition), base, atol=1e-4)
    with trainer.reference():
        assert torch.allclose(velocity(trainer.backbone, condition), base, atol=1e-6)


def test_what_cannot_be_is_refused(recipe, tiny, tmp_path):
    with pytest.raises(InputError, match=r"experts\.kind prophy"):
        run(recipe(weights="full"))
    with pytest.raises(InputError, match="copied blocks"):
        run(recipe(experts={"kind": "prophy", "blocks": 99}))
    transformer = WanBackbone.load(str(tiny)).transformer
    assert saved.options_of(transformer) is None
    assert not saved.load(transformer, tmp_path)
    save_file({"blocks.0.physics.none": torch.zeros(1)}, tmp_path / saved.FILE)
    with pytest.raises(InputError, match="no physics experts"):
        saved.load(transformer, tmp_path)
    save_file({"blocks.0.physics.none": torch.zeros(1)}, tmp_path / saved.FILE, metadata={"physics_experts": '{"blocks": 1}'})
    with pytest.raises(InputError, match="beside another one"):
        saved.load(transformer, tmp_path)
