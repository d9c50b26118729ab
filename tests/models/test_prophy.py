"""ProPhy's experts: nothing changes at first, routing aligns with labels, and a branch beside the real Wan class is safe."""

import pytest
import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig

from visviva.errors import InputError
from visviva.models.attention import MomentumAttention, momentum_attention, plain_attention
from visviva.models.backbones.tiny import tiny_wan
from visviva.models.control import force_control
from visviva.models.experts import (
    FineAlignment,
    RefinementExperts,
    SemanticExperts,
    balance,
    coarse_alignment,
    parts_of,
    physics_experts,
    plain_blocks,
    specialisation,
)


def test_semantic_experts_change_nothing_at_first_and_are_mixed_by_the_prompt():
    experts = SemanticExperts(6, 4, experts=3, grid=(2, 2, 2))
    x, text = torch.randn(2, 24, 6), torch.randn(2, 5, 4)
    assert torch.equal(experts(x, text, (2, 3, 4)), x)
    assert torch.allclose(experts.weights.sum(1), torch.ones(2))
    with torch.no_grad():
        experts.maps.normal_()
    same = experts(torch.zeros(2, 8, 6), text, (2, 2, 2))
    wanted = torch.einsum("be,edn->bnd", experts.weights, experts.maps.flatten(2))
    assert torch.allclose(same, wanted, atol=1e-6)


def test_refinement_experts_are_the_identity_at_first_and_with_all_active_the_dense_mixture():
    experts = RefinementExperts(6, experts=4, active=2)
    x = torch.randn(2, 9, 6)
    assert torch.allclose(experts(x), x, atol=1e-6)
    dense = RefinementExperts(6, experts=4, active=4)
    with torch.no_grad():
        dense.weight.normal_()
        dense.bias.normal_()
    share = dense.router(x).softmax(-1)
    wanted = torch.einsum("bne,bnd,edo->bno", share, x, dense.weight) + share @ dense.bias
    assert torch.allclose(dense(x), wanted, atol=1e-5)
    with pytest.raises(InputError, match="5 active of 4"):
        RefinementExperts(6, experts=4, active=5)


def test_coarse_alignment_is_zero_for_routing_like_the_labels_and_blind_to_which_expert_is_which():
    labels = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0])).float()
    assert float(coarse_alignment(labels, labels)) == pytest.approx(0.0, abs=1e-10)
    routed = torch.rand(4, 3)
    assert float(coarse_alignment(routed[:, [2, 0, 1]], labels)) == pytest.approx(float(coarse_alignment(routed, labels)))
    assert float(coarse_alignment(torch.ones(4, 3), labels)) == pytest.approx(5 / 6)  # one pair of six is alike
    unlabelled = torch.cat([labels, torch.zeros(2, 3)])
    assert float(coarse_alignment(torch.cat([labels, torch.rand(2, 3)]), unlabelled)) == pytest.approx(0.0, abs=1e-10)


def test_purity_and_information_of_known_tables():
    kind = torch.tensor([0, 0, 1, 1])
    told = specialisation(kind, kind)
    assert (told.purity, told.assigned) == (1.0, 1.0)
    assert told.bits == pytest.approx(1.0)
    assert told.entropy == pytest.approx(1.0)
    blind = specialisation(torch.tensor([0, 1, 0, 1]), kind)
    assert (blind.purity, blind.assigned) == (0.5, 0.5)
    assert blind.bits == pytest.approx(0.0, abs=1e-12)
    split = specialisation(torch.tensor([0, 1, 2, 2]), kind)  # two experts share a phenomenon
    assert (split.purity, split.assigned) == (1.0, 0.75)


def test_chance_shuffles_whole_clips():
    """A hundred tokens of each of four clips prove no more than four clips do."""
    kind = torch.tensor([0, 0, 1, 1]).repeat_interleave(100)
    clip = torch.arange(4).repeat_interleave(100)
    apart, together = specialisation(kind, kind), specialisation(kind, kind, clip)
    assert together.bits == pytest.approx(1.0)
    assert together.shuffled_bits == pytest.approx(1.0), "one permutation in three gives the same partition"
    assert apart.shuffled_bits < 0.05
    assert (together.samples, together.clips) == (400, 4)
    with pytest.raises(InputError, match="two phenomena"):
        specialisation(kind, kind, torch.zeros_like(clip))
    with pytest.raises(InputError, match="no samples"):
        specialisation(kind[:0], kind[:0])


def test_the_notes_mask_is_won_by_a_constant_and_ours_is_not():
    torch.manual_seed(0)
    seen = torch.nn.functional.one_hot(torch.arange(20) % 2).float()[None]
    logits, labelled = 5 * torch.randn(1, 20, 3), torch.ones(1, 2, dtype=torch.bool)
    fine = FineAlignment(3, 2)
    with torch.no_grad():
        fine.widen[2].weight.zero_()
        fine.widen[2].bias.fill_(1.0)
        assert float(fine(logits, seen, labelled)) == 0.0
        assert float(fine(logits, seen)) == pytest.approx(0.5)
        assert float(fine(logits, torch.zeros_like(seen))) == 0.0  # background alone: nothing to tell


def test_routing_separates_two_phenomena_when_it_is_told_where_they_are():
    """Left half of the tokens spin, right half fall: told by masks (and balanced) the experts specialise, untold less so."""
    found = {}
    for told in (False, True):
        torch.manual_seed(0)
        experts, fine = RefinementExperts(8, experts=4, active=1), FineAlignment(4, 2)
        directions = torch.randn(2, 8)
        optimizer = torch.optim.Adam([*experts.parameters(), *fine.parameters()], lr=2e-2)

        def drawn(directions=directions):
            kind = (torch.arange(32) >= 16).long().expand(8, 32)
            return 1.2 * directions[kind] + torch.randn(8, 32, 8), kind

        for _ in range(150):
            x, kind = drawn()
            y = experts(x)
            loss = (y - x).square().mean() + 0.01 * balance(experts.logits.flatten(0, 1), experts.chosen.flatten(0, 1))
            if told:
                loss = loss + fine(experts.logits, torch.nn.functional.one_hot(kind, 2).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        x, kind = drawn()
        experts(x)
        found[told] = specialisation(experts.chosen[..., 0].flatten(), kind.flatten(), shuffles=0).purity
    assert found[True] > 0.9
    assert found[False] < found[True]


def wan(layers=3):
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=256, ffn_dim=32, num_layers=layers, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    )  # fmt: skip
    return model.eval()


def given(frames=3, seed=0):
    make = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(2, 4, frames, 8, 8, generator=make),
        "timestep": torch.tensor([500.0, 100.0]),
        "encoder_hidden_states": torch.randn(2, 6, 16, generator=make),
    }


def test_a_new_branch_changes_nothing_bit_by_bit_and_can_be_taken_off():
    model = wan()
    with torch.no_grad():
        stock = model(**given()).sample
        parts = physics_experts(model, blocks=2)
        assert torch.equal(model(**given()).sample, stock)
        for part in parts:
            part.inject.weight.normal_(std=0.1)
        moved = model(**given()).sample
        assert not torch.allclose(moved, stock, atol=1e-4)
        parts[0].semantic.maps.normal_()
        assert not torch.allclose(model(**given()).sample, moved, atol=1e-4)
        plain_blocks(model)
        assert torch.equal(model(**given()).sample, stock)
    assert list(parts_of(model)) == []


def test_gradients_are_the_same_with_checkpoints_and_two_shapes_in_flight():
    model = wan()
    parts = physics_experts(model, blocks=2)
    with torch.no_grad():
        for part in parts:
            part.inject.weight.normal_(std=0.1)
    grads = []
    for checkpoints in (False, True):
        if checkpoints:
            model.train().enable_gradient_checkpointing()
        model.zero_grad()
        (model(**given(3)).sample.square().mean() + model(**given(2, 1)).sample.square().mean()).backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if "physics" in name and p.grad is not None})
    assert "blocks.0.physics.semantic.maps" in grads[0]
    assert "blocks.1.physics.refinement.weight" in grads[0]
    for name, value in grads[0].items():
        assert torch.allclose(value, grads[1][name], rtol=1e-4, atol=1e-7), name


def test_the_branch_is_saved_with_the_transformer():
    model = wan()
    physics_experts(model, blocks=1)
    names = [name for name in model.state_dict() if "physics" in name]
    assert any("copied.attn1.to_q" in name for name in names)
    other = wan()
    physics_experts(other, blocks=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.blocks[0].physics.inject.weight, model.blocks[0].physics.inject.weight)


def adapted(model):
    model.add_adapter(LoraConfig(r=2, target_modules=r".*\.to_q"))
    return model


def adapted_after(targets):
    backbone = tiny_wan("test")
    physics_experts(backbone.transformer, blocks=1)
    backbone.add_lora(2, targets=targets)


def test_the_default_adapters_leave_the_branch_alone():
    backbone = tiny_wan("test")
    physics_experts(backbone.transformer, blocks=1)
    backbone.add_lora(2)
    adapters = [name for name, _ in backbone.transformer.named_parameters() if "lora_" in name]
    assert adapters
    assert not any("physics" in name for name in adapters)


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False])
def test_bfloat16_goes_through_the_branch(whole):
    model, inputs = wan().bfloat16(), given()
    if not whole:  # as from_pretrained(torch_dtype=bfloat16) leaves it
        for name, parameter in model.named_parameters():
            if any(part in name for part in model._keep_in_fp32_modules):
                parameter.data = parameter.data.float()
    inputs = {k: v.bfloat16() if v.is_floating_point() and k != "timestep" else v for k, v in inputs.items()}
    wanted = model(**inputs).sample
    parts = physics_experts(model, blocks=2)
    assert torch.equal(model(**inputs).sample, wanted)
    parts[1].inject.weight.normal_(std=0.1)
    assert not torch.equal(model(**inputs).sample, wanted)


def test_copies_of_a_frozen_model_are_trained_and_not_written_as_if_nothing_had_changed(tmp_path):
    model = wan().requires_grad_(False)
    parts = physics_experts(model, blocks=2)
    assert all(parameter.requires_grad for parameter in parts.parameters())
    assert not model.blocks[0].attn1.to_q.weight.requires_grad
    with pytest.raises(InputError, match="plain_blocks"):
        model.save_pretrained(tmp_path)


def test_momentum_of_a_copy_is_taken_off_too():
    model = wan()
    momentum_attention(model, 0.3)
    physics_experts(model, blocks=1)
    plain_attention(model)
    assert not any(isinstance(module, MomentumAttention) for module in model.modules())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: physics_experts(torch.nn.Linear(2, 2)), "Linear"),
        (lambda: physics_experts(wan(), blocks=4), "4 copied blocks"),
        (lambda: [physics_experts(m) for m in [wan()] * 2], "already"),
        (lambda: [put(m, blocks=1) for m in [wan()] for put in (force_control, physics_experts)], "force control"),
        (lambda: physics_experts(adapted(wan())), "merge them"),
        (lambda: adapted_after(r".*\.to_q"), r"branch beside the blocks, such as 'blocks.0.physics"),
        (lambda: adapted_after("to_nothing"), "match no layer"),
        (lambda: adapted_after("("), "no regular expression"),
        (lambda: adapted_after(r"blocks\.0\.norm2"), "norm2"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
