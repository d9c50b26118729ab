"""Options and groups that an optimizer does not have, or of another kind, are refused by name; what schedulers add is not."""

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.optim import BY_NAME, SPAM, AdamW, ClipGlobalNorm, Lion, MomentumReset, Muon, SparseMomentum

BAD = ("x", None, object(), [], (0.9,), float("nan"), 1.5, {}, -2, (0.9, "y"), (1, 2, 3, 4))
WEIGHT = (4, 3)


def parameters(count=1):
    return [(f"{i}.weight", nn.Parameter(torch.ones(WEIGHT))) for i in range(count)]


@pytest.mark.parametrize("name", BY_NAME)
def test_whatever_is_given_works_or_is_an_input_error(name):
    kind, refused = BY_NAME[name], 0
    for option in kind(parameters()).defaults:
        for value in BAD:
            for arguments, options in (((parameters(),), {option: value}), (([{"params": parameters(), option: value}],), {})):
                try:  # anything but an InputError fails here
                    kind(*arguments, **options)
                except InputError:
                    refused += 1
    assert refused > 10 * len(kind(parameters()).defaults)


@pytest.mark.parametrize("name", BY_NAME)
def test_unknown_options_are_named_with_what_is_allowed(name):
    with pytest.raises(
        InputError, match=r"has no option 'weight_decey' \(given 0.1\); did you mean 'weight_decay'.*lr, .*adopt"
    ):
        BY_NAME[name](parameters(), weight_decey=0.1)
    with pytest.raises(
        InputError, match=r"group has the key 'weight_decey' .*did you mean 'weight_decay'.*allowed are params, "
    ):
        BY_NAME[name]([{"params": parameters(), "weight_decey": 0.1}])
    with pytest.raises(InputError, match=r"group has the key 'adopt'"):
        BY_NAME[name]([{"params": parameters(), "adopt": True}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: AdamW(p, betas=(0.9,)), r"AdamW: betas is \(0.9,\); allowed is 2 numbers, such as \(0.9, 0.999\)"),
        (lambda p: AdamW(p, betas=0.9), r"AdamW: betas is 0.9; allowed is 2 numbers"),
        (lambda p: Lion(p, betas=(0.9, "0.99")), r"Lion: betas is .*; allowed is 2 numbers"),
        (lambda p: Muon(p, adamw_betas=(0.9, 0.95, 0.99)), r"Muon: adamw_betas is .*; allowed is 2 numbers"),
        (lambda p: AdamW([{"params": p, "betas": (0.9,)}]), r"betas is \(0.9,\)"),
        (lambda p: SPAM(p, reset_every=1.5), r"SPAM: reset_every is 1.5; allowed is a whole number"),
        (lambda p: Muon(p, nesterov="no"), r"Muon: nesterov is 'no'; allowed is True or False"),
        (lambda p: AdamW(p, extra=[MomentumReset(2.5)]), r"MomentumReset.period is 2.5; allowed is a whole number from 1 on"),
        (lambda p: AdamW(p, extra=[SparseMomentum(0.5, 0)]), r"SparseMomentum.period is 0"),
    ],
)
def test_values_of_another_kind_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make(parameters())


def test_a_refused_group_is_not_added():
    optimizer = AdamW(parameters())
    with pytest.raises(InputError, match="the key 'momentum'"):
        optimizer.add_param_group({"params": parameters(), "momentum": 0.9})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, cycle_momentum=True),
        lambda o: torch.optim.swa_utils.SWALR(o, 0.01),
    ],
)
def test_groups_of_an_earlier_optimizer_with_a_scheduler_are_taken(make):
    optimizer = AdamW([{"params": parameters(), "name": "body", "lr": 0.1, "initial_lr": 0.1}])
    make(optimizer)
    plain = AdamW([{**optimizer.param_groups[0], "params": [p for _, p in parameters()], "param_names": ["w"]}])
    assert plain.param_groups[0]["name"] == "body"


def test_norms_over_chosen_weights_are_refused():
    for kind, options in ((SPAM, {"density": 0.5}), (AdamW, {"extra": [SparseMomentum(0.5)]})):
        options = {**options, "extra": [*options.get("extra", []), ClipGlobalNorm(1.0)]}
        with pytest.raises(InputError, match=r"ClipGlobalNorm would see the chosen weights only; .*clip_grad_norm_ before"):
            kind(parameters(), **options)


def stepped(optimizer, named, steps=1):
    for _ in range(steps):
        for _, p in named:
            p.grad = torch.randn(p.shape)
        optimizer.step()


@pytest.mark.parametrize(("old", "new"), [(0.5, 0.25), (0.5, 1.0), (1.0, 0.5), (0.26, 0.25)])
@pytest.mark.parametrize("left_out", [False, True])
def test_density_may_not_change_in_the_middle(old, new, left_out):
    named = parameters(2)
    optimizer = SPAM(named, density=old)
    stepped(optimizer, named, 2)
    optimizer.param_groups[0]["density"] = new
    if left_out:  # what is laid out anew for another reason
        named[1][1].grad = None
        named = named[:1]
    with pytest.raises(InputError, match=rf"density of sparse momentum is {new:g}, but the states hold"):
        stepped(optimizer, named)


def test_another_period_redraws_when_it_resets():
    named = parameters()
    optimizer = SPAM(named, density=0.5, reset_every=100)
    stepped(optimizer, named, 3)
    before = optimizer.state[named[0][1]]["chosen"].clone()
    optimizer.param_groups[0]["reset_every"] = 4
    stepped(optimizer, named)
    state = optimizer.state[named[0][1]]
    assert not torch.equal(before, state["chosen"])
    assert torch.allclose(state["exp_avg"], 0.1 * named[0][1].grad.reshape(-1)[state["chosen"].long()])
