"""What users do to optimizers between steps: loading twice, replacing gradients and weights, freezing, idle chains."""

import copy

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.optim import MKOR, NAMO, SGDM, AdamW, Apply, Ema, Muon, SpikeClip, chain


def stepped(optimizer, tensors, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p.square() * torch.arange(1.0, p.numel() + 1).view(p.shape)).sum() for p in tensors if p.requires_grad).backward()
        optimizer.step()


def test_a_state_loads_again_and_again():
    model = nn.Linear(3, 3)
    for optimizer in (AdamW(model.parameters()), NAMO(model.named_parameters()), MKOR(model, SGDM(model.parameters()))):
        saved = copy.deepcopy(optimizer.state_dict())
        for _ in range(3):
            optimizer.load_state_dict(copy.deepcopy(saved))
        assert optimizer.state_dict()["param_groups"][0]["lr"] == saved["param_groups"][0]["lr"]


def test_accelerate_saves_and_loads(tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = nn.Linear(3, 3)
    model, optimizer = accelerator.prepare(model, AdamW(model.parameters(), lr=0.1))
    stepped(optimizer, list(model.parameters()))
    accelerator.save_state(str(tmp_path))
    before = [p.detach().clone() for p in model.parameters()]
    stepped(optimizer, list(model.parameters()))
    after = [p.detach().clone() for p in model.parameters()]
    accelerator.load_state(str(tmp_path))
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    stepped(optimizer, list(model.parameters()))
    assert all(torch.equal(p, a) for p, a in zip(model.parameters(), after, strict=True))


def test_a_row_that_had_no_gradient_yet_is_not_clipped_for_ever():
    table = nn.Embedding(4, 3)
    optimizer = AdamW(table.parameters(), lr=1e-2, weight_decay=0.0, extra=[SpikeClip(5000.0)])
    start = table.weight[3].detach().clone()
    for i in range(100):
        optimizer.zero_grad()
        table(torch.tensor([0, 1] if i < 30 else [0, 3])).square().sum().backward()
        optimizer.step()
    assert (table.weight[3] - start).norm() > 0.1


@pytest.mark.parametrize("adopt", [False, True])
def test_replaced_gradient_data_is_seen(adopt):
    weight = nn.Parameter(torch.zeros(3))
    optimizer = SGDM([weight], lr=1.0, momentum=0.9, adopt=adopt)
    for _ in range(3):
        optimizer.zero_grad()
        weight.sum().backward()
        weight.grad.data = weight.grad.data / 4
        optimizer.step()
    assert torch.allclose(weight, torch.full((3,), -0.25 * (1 + 1.9 + 2.71)))


def test_zero_grad_clears_what_was_not_in_the_last_step():
    one, two = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = AdamW([one, two], lr=0.1, adopt=True)
    one.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    (one.sum() + two.sum() * float("inf")).backward()  # an overflow: the step is skipped
    optimizer.zero_grad()
    assert two.grad is None or not two.grad.any()


@pytest.mark.parametrize("adopt", [False, True])
def test_frozen_weights_stand_still(adopt):
    tensors = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    optimizer = AdamW(tensors, lr=0.1, adopt=adopt)
    stepped(optimizer, tensors)
    tensors[0].requires_grad_(False)
    before = tensors[0].detach().clone()
    stepped(optimizer, tensors)
    assert torch.equal(tensors[0], before)


def test_weights_replaced_at_the_same_address_are_noticed():
    ours, theirs = (nn.Parameter(torch.arange(16.0).view(4, 4)) for _ in range(2))
    pairs = [(ours, AdamW([ours], lr=0.1)), (theirs, torch.optim.AdamW([theirs], lr=0.1))]
    for p, optimizer in pairs:
        p.grad = torch.ones(4, 4)
        optimizer.step()
        p.data = p.data.t()
        p.grad = torch.arange(16.0).view(4, 4)
        optimizer.step()
    assert torch.allclose(ours, theirs)


def test_chains_that_move_nothing_are_refused_and_generators_are_kept():
    weight = nn.Parameter(torch.zeros(3))
    with pytest.raises(InputError, match=r"no transform of the chain moves the weights; end it with Apply"):
        chain([weight], [Ema(0.9)], lr=0.1)
    optimizer = chain([weight], (t for t in [Ema(0.0), Apply()]), lr=1.0)
    weight.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(weight, torch.full((3,), -1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: AdamW(p, state_dtype=torch.int32), "state_dtype is torch.int32; allowed are"),
        (lambda p: Muon(p, split={"weight": 0}), "split cuts 'weight' into 0 blocks"),
        (lambda p: Muon(p, adamw_ratio=-1.0), "factor is -1.0; allowed is"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make([nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.zeros(3))])


def test_another_number_of_groups_is_refused():
    tensors = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))]
    saved = AdamW([{"params": tensors[:1]}, {"params": tensors[1:]}]).state_dict()
    with pytest.raises(InputError, match=r"groups of \[1, 1\] parameters, this optimizer of \[2\]"):
        AdamW(tensors).load_state_dict(saved)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_narrow_second_moments_neither_vanish_nor_stick(dtype):
    """Gradients of a wide range within one block, which then become ten times smaller: v has to follow."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(-5, 0, 256)
    weight = nn.Parameter(torch.zeros(256))
    optimizer = AdamW([weight], lr=1e-3, weight_decay=0.0, betas=(0.9, 0.99), state_dtype=dtype)
    for step in range(1500):
        weight.grad = torch.randn(256, generator=generator) * scale * (1.0 if step < 500 else 0.1)
        optimizer.step()
    assert weight.abs().max() < 0.5
    if dtype == torch.bfloat16:
        v = optimizer.state[weight]["exp_avg_sq"].float()
        assert (v / (0.1 * scale).square()).mean() == pytest.approx(1.0, abs=0.15)


def test_names_that_only_look_like_embedders_are_hidden():
    from visviva.optim.muon import hidden_matrix

    weight = torch.zeros(8, 8)
    hidden = ["mlp.shared_expert.up_proj.weight", "token_mixing.fc1.weight", "post_attn.weight", "time_mix.key.weight"]
    assert all(hidden_matrix(name, weight) for name in hidden)
    shown = [
        "shared.weight",
        "tok_embeddings.weight",
        "time_embedder.linear_1.weight",
        "pos_embed",
        "lm_head.weight",
        "x.head.weight",
    ]
    assert not any(hidden_matrix(name, weight) for name in shown)
