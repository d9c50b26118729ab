"""Force control on CogVideoX 1.0 and 1.5: the backbone bit by bit before training, forces in and gradients out after it."""

from dataclasses import replace

import pytest
import torch
from tiny_backbones import VARIANTS as PIPELINES

from visviva.errors import InputError
from visviva.models.backbones.cogvideox import CogVideoXBackbone
from visviva.models.control import add_control, parse_force, plain_control, saved, table

PUSH = "point:x=0.4,y=0.6,angle=30,magnitude=0.8"
FRAMES, SIZE = 9, 32
VARIANTS = ["cogvideox-t2v", "cogvideox-i2v", "cogvideox-1.5-t2v", "cogvideox-1.5-i2v"]


def backbone_of(variant):
    torch.manual_seed(0)
    backbone = CogVideoXBackbone(PIPELINES[variant]())
    backbone.transformer.requires_grad_(False).eval()
    return backbone


def given(backbone, *forces):
    first = torch.full((1, 3, SIZE, SIZE), 0.3) if backbone.image_to_video else None
    condition = backbone.condition(["a ball"], first, frames=FRAMES)
    return replace(condition, forces=table([parse_force(f) for f in forces])[None])


def velocity(backbone, condition):
    return backbone.velocity(backbone.noise([3], FRAMES, SIZE, SIZE), torch.full((1,), 0.5), condition)


def trained(backbone):
    """Stand-in for training: what leads back, and what reads the forces, is no longer zero."""
    make = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in backbone.transformer.named_parameters():
            if saved.is_control(name) and (".inject.weight" in name or "control.proj.weight" in name):
                p.add_(0.2 * torch.randn(p.shape, generator=make))


@pytest.mark.parametrize("variant", VARIANTS)
def test_before_training_every_force_gives_the_backbone_bit_by_bit_and_after_it_forces_matter(variant):
    backbone = backbone_of(variant)
    condition = given(backbone, PUSH)
    with torch.no_grad():
        stock = velocity(backbone, replace(condition, forces=None))
        add_control(backbone, 2)
        assert torch.equal(velocity(backbone, condition), stock)
        trained(backbone)
        moved = velocity(backbone, condition)
        assert not torch.allclose(moved, stock)
        assert not torch.allclose(moved, velocity(backbone, given(backbone, PUSH.replace("30", "200"))))
        plain_control(backbone.transformer)
        assert torch.equal(velocity(backbone, replace(condition, forces=None)), stock)


@pytest.mark.parametrize("variant", ["cogvideox-i2v", "cogvideox-1.5-t2v"])
def test_gradients_reach_branch_and_encoder_also_through_checkpoints(variant):
    backbone = backbone_of(variant)
    parts = add_control(backbone, 2)
    trained(backbone)
    condition, grads = given(backbone, PUSH), []
    for checkpoints in (False, True):
        if checkpoints:
            backbone.transformer.train().enable_gradient_checkpointing()
        backbone.transformer.zero_grad()
        velocity(backbone, condition).square().mean().backward()
        grads.append([p.grad.clone() for part in parts for p in part.parameters() if p.grad is not None])
    assert all(bool(p.grad.any()) for p in parts[0].parameters() if p.ndim > 1)
    assert len(grads[0]) == len(grads[1]) > 20
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in zip(*grads, strict=True))
    free = {name for name, p in backbone.transformer.named_parameters() if p.requires_grad}
    assert free == {name for name, _ in backbone.transformer.named_parameters() if saved.is_control(name)}


def test_it_is_saved_and_put_back(tmp_path):
    one, other = backbone_of("cogvideox-i2v"), backbone_of("cogvideox-i2v")
    add_control(one, 2)
    trained(one)
    saved.save(dict(one.transformer.named_parameters()), tmp_path)
    assert saved.load(other, tmp_path)
    with torch.no_grad():
        assert torch.equal(velocity(one, given(one, PUSH)), velocity(other, given(other, PUSH)))
    with pytest.raises(InputError, match="save_pretrained"):
        one.transformer.save_pretrained(tmp_path / "lost")
    with pytest.raises(InputError, match="already"):
        add_control(one)
