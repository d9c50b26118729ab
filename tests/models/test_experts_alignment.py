"""What teaches a branch's experts: maps on tokens, and losses of the last forward pass that reach the routers."""

import pytest
import torch
from test_prophy import given, wan

from visviva.errors import InputError
from visviva.models.experts import alignment, on_tokens, parts_of, physics_experts, specialisation
from visviva.models.experts import saved as kept

NAMES = ("falls", "rolls", "swings")


def test_a_map_lands_on_its_tokens_in_space_and_time():
    seen = torch.zeros(5, 2, 32, 32)
    seen[0, 0, :16, :16] = 1  # the first frame alone is latent frame 0
    seen[3:, 1, 16:, 16:] = 1  # frames 3 and 4 are latent frame 2
    found = on_tokens(seen, (3, 2, 2)).view(3, 2, 2, 2)
    wanted = torch.zeros(3, 2, 2, 2, dtype=torch.bool)
    wanted[0, 0, 0, 0] = wanted[2, 1, 1, 1] = True
    assert torch.equal(found, wanted)
    assert torch.equal(on_tokens(seen[[0, 1, 4]], (3, 2, 2)).view(3, 2, 2, 2), wanted), "a map for each latent frame"
    few = torch.zeros(3, 1, 32, 32)
    few[1, 0, :3, :4] = 1  # 12 of 256 pixels are less than 5 %, 13 are more
    assert not on_tokens(few, (3, 2, 2)).any()
    few[1, 0, 4, 0] = 1
    assert int(on_tokens(few, (3, 2, 2)).sum()) == 1
    with pytest.raises(InputError, match="6 frames for 3 latent frames"):
        on_tokens(torch.zeros(6, 1, 32, 32), (3, 2, 2))


def told(model):
    labels = torch.eye(3)[:2]
    seen = torch.zeros(2, 48, 3, dtype=torch.bool)
    seen[0, :24, 0] = seen[1, 12:30, 1] = True
    return alignment(list(parts_of(model)), labels, seen)


def test_losses_reach_the_routers_alike_with_and_without_checkpoints():
    model, grads = wan(), []
    physics_experts(model, blocks=2, refinement=4, phenomena=NAMES)
    for checkpoints in (False, True):
        if checkpoints:
            model.train().enable_gradient_checkpointing()
        model.zero_grad()
        loss = model(**given()).sample.square().mean()
        sum(told(model).values(), loss).backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if "router" in name or "told" in name})
    assert {name.split("physics.")[1].split(".")[0] for name in grads[0]} == {"semantic", "refinement", "told"}
    for name, value in grads[0].items():
        assert value.abs().max() > 0, name
        assert torch.allclose(value, grads[1][name], rtol=1e-4, atol=1e-7), name


def test_routing_learns_the_phenomena_of_words_and_tokens():
    """Two prompts, two phenomena, in different tokens: a few updates separate the experts."""
    torch.manual_seed(0)
    model, inputs = wan(), given()
    parts = list(physics_experts(model, blocks=1, refinement=4, active=1, phenomena=NAMES))
    optimizer = torch.optim.Adam([p for name, p in parts[0].named_parameters() if not name.startswith("copied")], lr=3e-2)
    for _ in range(60):
        model(**inputs)
        losses = told(model)
        optimizer.zero_grad()
        (losses["semantic"] + losses["refinement"] + 0.01 * losses["balance"]).backward()
        optimizer.step()
    first = parts[0].semantic.weights.argmax(1)
    assert first[0] != first[1]
    tokens = parts[0].refinement.chosen[..., 0]
    clip = torch.tensor([0, 1]).repeat_interleave(torch.tensor([24, 18]))
    found = specialisation(torch.cat([tokens[0, :24], tokens[1, 12:30]]), clip, clip, shuffles=0)
    assert found.purity > 0.9, found


def test_what_reads_phenomena_is_kept_with_the_branch(tmp_path):
    model, other = wan(), wan()
    physics_experts(model, blocks=1, phenomena=NAMES)
    assert kept.options_of(model)["phenomena"] == list(NAMES)
    kept.save(model, dict(model.named_parameters()), tmp_path)
    assert kept.load(other, tmp_path)
    wanted = next(parts_of(model)).told.widen[0].weight
    assert torch.equal(next(parts_of(other)).told.widen[0].weight, wanted)


def test_what_cannot_be_aligned_is_refused():
    model = wan()
    physics_experts(model, blocks=1)
    parts = list(parts_of(model))
    with pytest.raises(InputError, match="routed nothing yet"):
        alignment(parts, torch.eye(2))
    model(**given())
    with pytest.raises(InputError, match="2 clips were routed, 3 are labelled"):
        alignment(parts, torch.eye(3))
    with pytest.raises(InputError, match="none phenomena"):
        alignment(parts, torch.eye(2), torch.zeros(2, 48, 2, dtype=torch.bool))
